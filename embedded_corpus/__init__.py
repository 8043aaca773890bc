"""Generates the embedded corpus: drawn talking faces with synthetic speech, in the folder layout of a real dataset.

The corpus is deterministic: the same settings give the same files.
"""
