"""Calibration: degrades clips in known ways, and checks whether each metric changes as the metric's record claims."""
