"""Draws pictures of faces from landmarks, with a mesh renderer for the CPU or with CEM-Net's flow renderer."""
