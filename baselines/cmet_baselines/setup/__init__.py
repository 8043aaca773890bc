"""Sets up the methods with a recipe: checkout, environment, weights, and a smoke test."""
