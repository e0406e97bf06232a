"""Figures of people and not of images: recalls, their differences, intervals and tests."""
