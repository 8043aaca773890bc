"""Foundation of the suite: labels, media, faces, networks, task execution. It does not import the other packages."""
