"""The Method interface, the trivial methods, and the catalogue of pinned baselines."""
