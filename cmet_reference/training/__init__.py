"""Trains the stages of the reference models: the training loop, its checkpoints, cards and curves."""
