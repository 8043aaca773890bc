"""Finds and tracks faces, smooths their landmarks, and crops them with a transform to source pixels."""
