"""Foundation of the suite: vocabulary, media, faces, networks, task execution. It imports no other suite package."""
