"""Bundles: the form in which result rows and a sample of videos are submitted to the standing leaderboard."""
