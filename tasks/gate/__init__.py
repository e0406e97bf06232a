"""The gate decides whether a new model may replace the current one, on the same frozen test set."""
