"""The registry: versions of the model, which one is in use, and the model as it is shipped."""
