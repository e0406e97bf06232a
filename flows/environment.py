"""Settings that stand before prefect, mlflow or dvc are imported: local homes, quiet logs.

Telemetry is switched off earlier, when `tasks` is imported.
"""

import os
from pathlib import Path

from tasks.core.account import name_account
from tasks.core.private import close_folders, prepare_site_cache, restrict_umask
from tasks.core.sqlite_url import URI_FORM, sqlite_url

DATABASE_VARIABLES = (  # of Prefect: its newer name and its older one
    "PREFECT_SERVER_DATABASE_CONNECTION_URL",
    "PREFECT_API_DATABASE_CONNECTION_URL",
)


def prepare_environment(root: Path, close: bool = True) -> None:
    """Set what the libraries read from the environment; values that are set already stay.

    Parameters
    ----------
    root
        The project's folder; Prefect's home and database live in `.prefect/` below it, DVC's site
        cache in `.cache/`.
    close
        Whether to take other accounts' access to private folders away at once; the doctor does it
        later, and reports it.
    """
    restrict_umask()
    name_account(root)
    site_cache = prepare_site_cache(root)
    if close:
        close_folders(root)
    for name, value in {
        "DVC_SITE_CACHE_DIR": str(site_cache),
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # a server's client tells of every run
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # it would stand among the lines of a log
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # 14 s of a server that is away; else 4 minutes
        # Files go through MLflow's server: clients may not know the S3 server, or not by that name.
        "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
        "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "false",
        "PREFECT_HOME": str(root / ".prefect"),
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_TO_API_ENABLED": "false",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",  # flows/server.py starts one that dies
    }.items():
        os.environ.setdefault(name, value)
    database = Path(os.environ["PREFECT_HOME"]) / "prefect.db"
    url = sqlite_url(database, "aiosqlite")
    if url.endswith(URI_FORM) and not any(os.environ.get(name) for name in DATABASE_VARIABLES):
        os.environ[DATABASE_VARIABLES[0]] = url  # by itself Prefect would cut the path at a `?`
