"""The choice among base model and strategies."""
