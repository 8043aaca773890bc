"""Turns datasets into Parquet shards. The package has readers, the processing of clips, shards and the ledger."""
