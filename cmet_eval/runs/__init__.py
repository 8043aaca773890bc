"""The evaluation run: plans the run, generates and scores the videos, measures times, and verifies results."""
