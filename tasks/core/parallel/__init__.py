"""Executors, processes and their progress."""
