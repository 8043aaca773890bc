"""C-MET: emotion directions heard in speech, turned into directions of a face's expression code."""
