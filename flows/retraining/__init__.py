"""When to retrain, and one retraining cycle."""
