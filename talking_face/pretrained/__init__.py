"""Pinned networks: one registry (`weights.toml`), a store that finds and checks files, a thin wrapper per network."""
