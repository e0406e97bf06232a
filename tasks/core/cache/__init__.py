"""Results of earlier runs, found by a digest of all that they depend on."""
