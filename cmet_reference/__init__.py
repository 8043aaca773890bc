"""Networks, losses and training of the reference models C-MET and CEM-Net, and of the evaluators.

This package needs torch.
"""
