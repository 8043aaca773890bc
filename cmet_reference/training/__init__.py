"""The training loop that both reference models share: stages, the loop, checkpoints and their cards."""
