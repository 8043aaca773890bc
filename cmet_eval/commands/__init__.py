"""One file per command. Each file has a function with the command's name. The parameters are the command's options."""
