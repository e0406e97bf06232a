"""Face crops as batches of tensors."""
