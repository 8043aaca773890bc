"""The reference models and the evaluators trained on the corpus: networks, losses, training. Needs torch."""
