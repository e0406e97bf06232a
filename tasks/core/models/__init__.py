"""Emotion classifiers: specification, construction, storage and inference."""
