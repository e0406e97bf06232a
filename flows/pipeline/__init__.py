"""Any DVC target as a Prefect flow, its display, the DVC graph and remote workers."""
