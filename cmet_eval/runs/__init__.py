"""Runs an evaluation: plans it, generates the videos, scores them, times them, verifies them."""
