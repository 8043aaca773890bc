"""Stores result rows, computes statistics from them, and writes leaderboards."""
