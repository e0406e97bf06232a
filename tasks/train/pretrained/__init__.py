"""Weights of others: reading, checking and starting from them."""
