"""One file per command. Each has a function with the command's name; its arguments are the command's options."""
