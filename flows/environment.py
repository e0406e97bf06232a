"""Settings that stand before prefect, mlflow or dvc are imported: no telemetry, local homes."""

import os
from pathlib import Path


def prepare_environment(root: Path) -> None:
    """Set what the libraries read from the environment; values that are set already stay.

    Parameters
    ----------
    root
        The project's folder; Prefect's home and database live in `.prefect/` below it.
    """
    for name, value in {
        "DO_NOT_TRACK": "true",
        "DVC_NO_ANALYTICS": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # a server's client tells of every run
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # it would stand among the lines of a log
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # 14 s of a server that is away; else 4 minutes
        # Files go through MLflow's server: clients may not know the S3 server, or not by that name.
        "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
        "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_HOME": str(root / ".prefect"),
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_TO_API_ENABLED": "false",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",  # flows/server.py starts one that dies
    }.items():
        os.environ.setdefault(name, value)
