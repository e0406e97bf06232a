"""MLflow runs, and the versions and digests that they record."""
