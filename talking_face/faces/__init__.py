"""Finds and tracks faces, smooths landmarks, and crops faces with transforms from source pixels to crop pixels."""
