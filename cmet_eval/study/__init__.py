"""The user study: writes a blind page for raters, and analyses the raters' answers."""
