"""The user study: makes a blind page for raters, and analyses their answers."""
