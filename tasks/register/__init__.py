"""The model registry: versions, aliases, model cards, and the packaged model for serving."""
