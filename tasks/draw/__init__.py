"""Synthetic demonstration cohort: faces rendered from parameters, with ground truth."""
