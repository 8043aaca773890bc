"""The `Method` interface, the methods without a network, and the catalogue of baselines with fixed revisions."""
