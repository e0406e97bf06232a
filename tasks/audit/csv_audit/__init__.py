"""The audit of any system's predictions."""
