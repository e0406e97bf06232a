"""The report of `affectgap study`."""
