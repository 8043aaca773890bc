"""Calibration: known degradations of clips, and whether each metric answers them as it claims."""
