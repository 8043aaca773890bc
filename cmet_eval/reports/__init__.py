"""Reports for people: tables, comparisons of two methods, contact sheets, the board's gallery."""
