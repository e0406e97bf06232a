"""Holds the manifest against expectations: bad rows are quarantined, a bad whole stops the run."""
