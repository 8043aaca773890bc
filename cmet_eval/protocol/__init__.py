"""The protocol of an evaluation: settings, drawing of evaluation pairs, and lists of pairs that papers publish."""
