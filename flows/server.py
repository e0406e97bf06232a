"""A Prefect server for one command: on 127.0.0.1, on a free port, gone when the command is.

Prefect's own ephemeral server outlives a parent that is killed; this one is told to die with it.
Where `PREFECT_API_URL` names a server, that one is used.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from prefect.settings import PREFECT_API_URL, temporary_settings

from tasks.core.errors import AffectGapError
from tasks.core.process import die_with_parent

_STARTUP_S = 90


@contextmanager
def prefect_server(root: Path) -> Iterator[str]:
    """Start a server and point Prefect to it, or use the one that `PREFECT_API_URL` names.

    Parameters
    ----------
    root
        The project's folder; the server's log is `.prefect/server.log` below it.

    Yields
    ------
    str
        The address of the API.

    Raises
    ------
    AffectGapError
        When the server does not answer within 90 s; names the log.
    """
    if url := os.environ.get("PREFECT_API_URL"):
        yield url
        return
    port = _free_port()
    log = root / ".prefect" / "server.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-c", f"from flows.server import serve; serve({port}, {os.getpid()})"],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=root,
            # Ctrl-C reaches a whole group of processes: the flow still says to the server that it
            # ends, and would try for minutes if that were gone.
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}/api"
    try:
        _wait_until_healthy(url, server, log)
        # Prefect read the environment when it was imported; a change there comes too late.
        with temporary_settings({PREFECT_API_URL: url}):
            yield url
    finally:
        server.terminate()
        try:
            server.wait(timeout=10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def serve(port: int, parent_pid: int) -> None:
    """Run the server in this process until its parent dies (called in a process of its own)."""
    die_with_parent(parent_pid)
    import uvicorn
    from prefect.server.api.server import create_app

    uvicorn.run(create_app(ephemeral=True), host="127.0.0.1", port=port, log_level="warning")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_healthy(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _STARTUP_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        try:
            if requests.get(f"{url}/health", timeout=2).ok:
                return
        except requests.RequestException:
            pass
        time.sleep(0.1)
    raise AffectGapError(f"{log}: the Prefect server did not start; `dvc repro` works without it")
