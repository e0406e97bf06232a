"""`affectgap ui`: MLflow's pages on 127.0.0.1, for whoever has the project's secret.

MLflow's own server asks for nothing, so that every account of the machine could read images and
change which model is in use; its basic-auth app needs a user database of its own and leaves some
paths open. Here all of it stands behind one guard.
"""

import os
import secrets
import warnings
from pathlib import Path

from flows.access import SERVING_UI, allowed_hosts, noted, standing_secret
from flows.guard import SecretGuard
from flows.server import HOST, require_free_port
from tasks.core.errors import UserError
from tasks.core.paths import Paths
from tasks.core.terminal import Console
from tasks.core.tracking import open_store, store_uri

_SERVER_HAS_PAGES = ("http://", "https://")


def serve_pages(paths: Paths, port: int, console: Console) -> None:
    """Show MLflow's pages until Ctrl-C or SIGTERM.

    Parameters
    ----------
    paths
        The project's paths.
    port
        On 127.0.0.1.
    console
        Where to write.

    Raises
    ------
    UserError
        Where `MLFLOW_TRACKING_URI` names a server, which has its own pages, or the port is taken.
    """
    uri = store_uri(paths)
    if uri.startswith(_SERVER_HAS_PAGES):
        raise UserError("MLFLOW_TRACKING_URI names a server, which has pages of its own: open that")
    require_free_port(port, "affectgap ui --port N")
    hosts, secret, url = allowed_hosts(), standing_secret(paths.root), f"http://{HOST}:{port}"
    open_store(paths)
    _configure(uri, paths.mlruns / "artifacts", [f"{host}:{port}" for host in hosts])
    how = "`affectgap status --ui` shows user and password; Ctrl-C ends it"
    console.say(f"MLflow: {url} ({how})")
    with noted(paths.at(SERVING_UI), url, own=True):
        _run(SecretGuard(_pages(), secret, hosts), hosts, port)


def _configure(uri: str, artifacts: Path, hosts: list[str]) -> None:
    """Leave in the environment what `mlflow server` leaves there for its workers."""
    os.environ.update(
        _MLFLOW_SERVER_FILE_STORE=uri,
        _MLFLOW_SERVER_REGISTRY_STORE=uri,
        _MLFLOW_SERVER_ARTIFACT_ROOT=artifacts.as_uri(),
        _MLFLOW_SGI_NAME="uvicorn",
        MLFLOW_FLASK_SERVER_SECRET_KEY=secrets.token_urlsafe(32),
        MLFLOW_SERVER_ALLOWED_HOSTS=",".join(hosts),
    )


def _pages():  # type: ignore[no-untyped-def]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what MLflow itself imports is no news for a user
        from mlflow.server.fastapi_app import app

    return app


def _run(app: SecretGuard, hosts: list[str], port: int) -> None:
    import uvicorn
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    uvicorn.run(
        TrustedHostMiddleware(app, allowed_hosts=hosts), host=HOST, port=port, log_level="warning"
    )
