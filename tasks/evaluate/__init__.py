"""Predicts every image with each model."""
