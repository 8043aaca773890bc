"""Turns datasets into Parquet shards: readers, processing of clips, shards and ledger."""
