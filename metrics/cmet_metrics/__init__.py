"""All metrics: pure functions on arrays, and small classes with each metric's name, signature and aggregate."""
