"""Contains the `Method` interface, methods without a network, and the catalogue of baselines at fixed revisions."""
