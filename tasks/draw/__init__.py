"""Draws the embedded cohort: faces from parameters, with the truth about each picture."""
