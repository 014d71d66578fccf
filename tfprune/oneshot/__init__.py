"""Pruning at once, without training, and the repair of what is left."""
