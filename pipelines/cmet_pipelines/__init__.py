"""Datasets in, Parquet shards out: readers, the embedded corpus, the Dask graph, shards and ledger."""
