"""Trains the evaluators of the `:corpus` metrics on a shard set: a lip-sync network and an emotion classifier."""
