"""Stage 2: validates the manifest. Bad rows are quarantined; a bad manifest stops the run."""
