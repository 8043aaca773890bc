"""Renders pictures from landmarks: one interface, a mesh warp for the CPU, and CEM-Net's flow renderer."""
