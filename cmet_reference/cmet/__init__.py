"""C-MET: maps a change of emotion in speech (a direction) to a change of a face's expression code."""
