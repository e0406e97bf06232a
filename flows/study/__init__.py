"""The model, loss and optimizer study."""
