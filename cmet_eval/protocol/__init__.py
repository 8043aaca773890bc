"""The protocol of an evaluation: its settings, the pairs they draw, and the rows that papers publish."""
