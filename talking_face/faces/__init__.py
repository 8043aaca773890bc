"""Faces on arrays: find, track through a clip, smooth, and crop with a transform back to source pixels."""
