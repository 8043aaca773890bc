"""The protocol of an evaluation: settings, the pairs that are drawn for them, and the lists that papers publish."""
