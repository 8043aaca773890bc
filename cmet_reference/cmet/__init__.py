"""C-MET: maps directions of emotion in speech to directions of a face's expression code."""
