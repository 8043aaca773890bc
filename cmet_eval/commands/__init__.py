"""One file a command; each holds one function of the command's name, whose arguments are the command's options."""
