"""Orchestration of the stages: the command line and the Prefect flows over DVC's graph."""

import tasks as _telemetry_off  # noqa: F401 - before prefect, mlflow or dvc are imported
