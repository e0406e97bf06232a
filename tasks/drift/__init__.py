"""Drift: how a batch of new pictures differs from what the model was trained on; advice."""
