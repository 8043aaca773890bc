"""Pinned networks: one registry of files (`weights.toml`), one store that finds and checks them, one thin wrapper each."""
