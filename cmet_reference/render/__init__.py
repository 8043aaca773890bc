"""From landmarks to pictures: one interface, a mesh warp for the CPU, and CEM-Net's flow and generator."""
