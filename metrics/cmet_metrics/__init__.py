"""Contains all metrics: pure functions on arrays, and small classes with the name and signature of each metric."""
