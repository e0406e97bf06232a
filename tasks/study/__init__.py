"""Choosing a backbone, a loss and an optimizer, round by round."""
