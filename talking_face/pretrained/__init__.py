"""Published networks with fixed weights: a registry and a store of the weight files, and a module per network."""
