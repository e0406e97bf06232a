"""Emotion recognisers: what they expect, how they are built, kept on disk and asked."""
