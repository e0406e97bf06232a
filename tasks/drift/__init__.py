"""Drift: how a batch of new images differs from what the model was trained on; advice."""
