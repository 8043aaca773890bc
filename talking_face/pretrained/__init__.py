"""Published networks with fixed weights: a registry of weight files, a store that finds them, a module per network."""
