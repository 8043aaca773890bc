"""Runs a function over many tasks on Dask workers, each with a child process that can be killed at a deadline."""
