"""The process environment: variables set before Prefect, MLflow and DVC, and a command's mark.

Telemetry is switched off earlier, when `tasks` is imported.

The mark, which every process that a command starts inherits, tells the doctor which of them
outlived it. The parent process does not tell: a child of a shell, a container's first process or a
service manager looks like an orphan.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import psutil

from tasks.core.files import close_folders, prepare_site_cache, restrict_umask
from tasks.core.parallel.process import is_dead, name_account, process_name
from tasks.core.paths import URI_FORM, sqlite_url
from tasks.core.text import clean

DATABASE_VARIABLES = (  # Prefect's current name for it and the older one
    "PREFECT_SERVER_DATABASE_CONNECTION_URL",
    "PREFECT_API_DATABASE_CONNECTION_URL",
)
COMMAND_VARIABLE = "AFFECTGAP_COMMAND"


def prepare_environment(root: Path, close: bool = True) -> None:
    """Set the libraries' environment variables; values that are already set stay.

    Prefect's home and database are in `.prefect/` below `root`, DVC's site cache in `.cache/`.
    `close` removes other accounts' access to private folders; the doctor does that later and
    reports it.
    """
    restrict_umask()
    name_account(root)
    site_cache = prepare_site_cache(root)
    if close:
        close_folders(root)
    for name, value in {
        "DVC_SITE_CACHE_DIR": str(site_cache),
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # would print the URL of every run
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # would mix with log lines
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # fail after 14 s instead of 4 minutes
        # Files go through MLflow's server: clients may not reach the S3 server by its name.
        "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
        "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "false",
        "PREFECT_HOME": str(root / ".prefect"),
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_TO_API_ENABLED": "false",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",  # see flows/pipeline/prefect_server.py
    }.items():
        os.environ.setdefault(name, value)
    database = Path(os.environ["PREFECT_HOME"]) / "prefect.db"
    url = sqlite_url(database, "aiosqlite")
    if url.endswith(URI_FORM) and not any(os.environ.get(name) for name in DATABASE_VARIABLES):
        os.environ[DATABASE_VARIABLES[0]] = url  # Prefect's default would cut the path at a `?`


def clean_arguments(arguments: Sequence[str]) -> list[str]:
    """Return a command's arguments with ids, batches and groups spelled as in the data.

    Names of existing files and folders stay as given, also in `--option=VALUE`, and so does the
    existing folder of a new file.
    """
    cleaned = []
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if equals and option.startswith("--"):
            cleaned.append(f"{option}={_clean_argument(value)}")
        else:
            cleaned.append(_clean_argument(argument))
    return cleaned


def _clean_argument(value: str) -> str:
    if clean(value) == value or os.path.lexists(value):
        return value
    folder, slash, name = value.rpartition("/")
    return f"{folder if os.path.isdir(folder) else clean(folder)}{slash}{clean(name)}"


def export_command_id() -> None:
    """Pass this process's name on to every process that it starts from now on."""
    os.environ[COMMAND_VARIABLE] = process_name(os.getpid())


def is_orphan(process: psutil.Process) -> bool:
    """Return whether the command that started a process is gone; False without a mark."""
    name = process.environ().get(COMMAND_VARIABLE, "")
    return bool(name) and is_dead(name)
