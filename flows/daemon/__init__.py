"""The process that schedules retraining, and its status."""
