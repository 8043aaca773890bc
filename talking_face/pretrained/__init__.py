"""Pinned networks: one registry (`weights.toml`), one store that finds and checks files, one thin wrapper each."""
