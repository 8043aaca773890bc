"""The reference models C-MET and CEM-Net, and the evaluators trained on a shard set: networks, losses and training.

It needs torch.
"""
