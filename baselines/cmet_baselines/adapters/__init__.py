"""Outside methods: a command line, a folder of videos, or a Python class, each in its own environment."""
