"""The ground floor: vocabulary, media, faces, pretrained networks and task execution. It imports no other room."""
