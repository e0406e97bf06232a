"""Figures of people and not of pictures: recalls, their differences, intervals and tests."""
