"""Turns datasets into Parquet shards: finds the clips, processes each clip, and writes shards and a ledger."""
