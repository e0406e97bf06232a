"""Asking each model about every picture, once."""
