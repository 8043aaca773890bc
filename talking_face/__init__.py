"""The ground floor: vocabulary, media, faces and pinned networks. Imports no other room, and no dask."""
