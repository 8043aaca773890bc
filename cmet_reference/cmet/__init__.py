"""C-MET maps a change of emotion in speech, called a direction, to a change of the face's expression code."""
