"""Trains the stages of the reference models and the evaluators: the loop, its checkpoints, cards and curves."""
