"""Runs a function over many tasks on Dask workers. Each worker keeps a child process, which can be killed."""
