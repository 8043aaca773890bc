"""Trains the two evaluators that the `:corpus` metrics use: a lip-sync network and an emotion classifier."""
