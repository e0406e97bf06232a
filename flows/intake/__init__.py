"""Importing data sets and batches of the inbox."""
