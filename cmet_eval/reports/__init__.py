"""Reports about results: tables, comparisons of two methods, contact sheets, and the gallery of the leaderboard."""
