"""Choosing a backbone, a loss and an optimiser, round by round."""
