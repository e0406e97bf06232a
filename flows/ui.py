"""`affectgap ui`: MLflow's pages on 127.0.0.1, protected by the project's secret.

MLflow's own server has no access control: every account on the machine could read images and change
which model is in use. Its basic-auth app needs a user database and leaves some paths open. Here one
guard protects everything.
"""

import os
import secrets
import warnings
from pathlib import Path

from flows.access import SERVING_UI, SecretGuard, allowed_hosts, announce_server, server_secret
from flows.pipeline.prefect_server import HOST, require_free_port
from tasks.core.errors import UserError
from tasks.core.paths import Paths
from tasks.core.terminal import Console
from tasks.core.tracking.mlflow_runs import open_store, store_uri

_SERVER_HAS_PAGES = ("http://", "https://")


def serve_pages(paths: Paths, port: int, console: Console) -> None:
    """Serve MLflow's pages until Ctrl-C or SIGTERM.

    Raises UserError if `MLFLOW_TRACKING_URI` names a server, which has its own pages, or the port
    is taken.
    """
    uri = store_uri(paths)
    if uri.startswith(_SERVER_HAS_PAGES):
        raise UserError("MLFLOW_TRACKING_URI names a server, which has pages of its own: open that")
    require_free_port(port, "affectgap ui --port N")
    hosts, secret, url = allowed_hosts(), server_secret(paths.root), f"http://{HOST}:{port}"
    open_store(paths)
    _configure(uri, paths.mlruns / "artifacts", [f"{host}:{port}" for host in hosts])
    hint = "`affectgap status --ui` shows user and password; Ctrl-C ends it"
    console.say(f"MLflow: {url} ({hint})")
    with announce_server(paths.at(SERVING_UI), url, own=True):
        _run(SecretGuard(_pages(), secret, hosts), hosts, port)


def _configure(uri: str, artifacts: Path, hosts: list[str]) -> None:
    """Set the environment variables that `mlflow server` sets for its workers."""
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
        warnings.simplefilter("ignore")  # warnings of MLflow's own imports
        from mlflow.server.fastapi_app import app

    return app


def _run(app: SecretGuard, hosts: list[str], port: int) -> None:
    import uvicorn
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    uvicorn.run(
        TrustedHostMiddleware(app, allowed_hosts=hosts), host=HOST, port=port, log_level="warning"
    )
