"""Finds and tracks faces, smooths their landmarks, and crops them with transforms from source pixels to crop pixels."""
