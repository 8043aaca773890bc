"""Contains adapters for outside methods: a command line, a folder of videos, or a Python class in its own process."""
