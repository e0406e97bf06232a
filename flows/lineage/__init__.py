"""Which images and which code a model was made from."""
