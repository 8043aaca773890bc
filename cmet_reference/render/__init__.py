"""Renders pictures from landmarks: an interface, a mesh renderer for the CPU, and CEM-Net's flow renderer."""
