"""The gate: may a new model replace the one in use? Rules on the same frozen test pictures."""
