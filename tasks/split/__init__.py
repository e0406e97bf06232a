"""Assigns each image to training, validation or test."""
