"""When affectgap does it: the command line and the Prefect flows over DVC's graph."""
