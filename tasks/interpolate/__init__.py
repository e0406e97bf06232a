"""Interpolation between the base and a fine-tuned model's weights."""
