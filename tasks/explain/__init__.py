"""LIME explanations of held-out images that a model classifies correctly."""
