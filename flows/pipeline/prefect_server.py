"""A Prefect server on 127.0.0.1, for one command or for `affectgap serve`.

It asks for a secret (`flows/access.py`) and answers only to known host names. Prefect's own
ephemeral server outlives a killed parent; this one dies with it. If `PREFECT_API_URL` names a
server, that one is used, with the user's `PREFECT_API_AUTH_STRING`.
"""

import errno
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import requests
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from flows.access import SERVER_VARIABLE, allowed_hosts, new_secret, server_secret
from tasks.core.errors import AffectGapError, UserError
from tasks.core.parallel.process import die_with_parent

HOST = "127.0.0.1"
_LOG, _STANDING_LOG = "server.log", "standing-server.log"
_MAX_LOG_BYTES = 10_000_000  # a larger log is rotated once
_STARTUP_S = 90
_STOP_S = 10
_LEASES = "prefect.server.concurrency.lease_storage.filesystem"


class Server:
    """A server in its own process; `port` None is any free one.

    A `standing` server has Prefect's scheduler, events and pages, and appends to
    `.prefect/standing-server.log`. Any other has only what one command needs; its log is
    `.prefect/server.log`.
    """

    def __init__(self, root: Path, port: int | None, standing: bool) -> None:
        self.port = port or _free_port()
        self.url = f"http://{HOST}:{self.port}/api"
        # The secret of a single command is never stored.
        self.secret = server_secret(root) if standing else new_secret()
        self._root = root
        self._log = root / ".prefect" / (_STANDING_LOG if standing else _LOG)
        self._standing = standing
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and wait until it answers; raises AffectGapError with the log's path."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        call = f"serve({self.port}, {os.getpid()}, {self._standing})"
        allowed_hosts()  # reports an invalid variable here instead of in the server's log
        settings = {
            SERVER_VARIABLE: self.secret,
            # Prefect's pages ask the server for its address, by default port 4200.
            "PREFECT_SERVER_API_HOST": HOST,
            "PREFECT_SERVER_API_PORT": str(self.port),
            # By default pages of any address may read and change the data.
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ",".join(self._own_addresses()),
            # Leases in memory would be lost when the server is restarted.
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": _LEASES,
        }
        with self._open_log() as output:
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"from flows.pipeline.prefect_server import serve; {call}"],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=self._root,
                env={**os.environ, **settings},
                # Ctrl-C signals the whole process group, but the flow still reports its end to the
                # server, and would retry for minutes if that were gone.
                start_new_session=True,
            )
        deadline = time.monotonic() + _STARTUP_S
        while time.monotonic() < deadline and self.is_running():
            if answers(self.url):
                return
            time.sleep(0.1)
        raise AffectGapError(
            f"{self._log}: the Prefect server did not start; `dvc repro` works without it"
        )

    def _open_log(self) -> BinaryIO:
        """Open the log; a standing server appends, to preserve the cause of an earlier crash."""
        if not self._standing:
            return self._log.open("wb")
        if self._log.is_file() and self._log.stat().st_size > _MAX_LOG_BYTES:
            self._log.replace(self._log.with_suffix(".log.1"))
        output = self._log.open("ab")
        output.write(f"--- {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC: started\n".encode())
        output.flush()
        return output

    def _own_addresses(self) -> list[str]:
        return [f"http://{host}:{self.port}" for host in (HOST, "localhost")]

    def is_running(self) -> bool:
        """Return whether the server's process is alive."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """End the server, by force if it takes too long."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def prefect_server(root: Path) -> Iterator[str]:
    """Point Prefect to a new server, or to the one that `PREFECT_API_URL` names; yield its URL.

    Raises AffectGapError, which names the log, if the server does not answer within 90 s.
    """
    if url := os.environ.get("PREFECT_API_URL"):
        yield url
        return
    with _running(Server(root, None, standing=False)) as server:
        yield server.url


@contextmanager
def scheduling_server(root: Path, port: int) -> Iterator[Server]:
    """Start a scheduling server on this port and point Prefect to it; see `prefect_server`.

    Raises UserError if the port is taken or needs privileges (those below 1024).
    """
    require_free_port(port, "affectgap serve --port N")
    with _running(Server(root, port, standing=True)) as server:
        yield server


def require_free_port(port: int, command: str) -> None:
    """Raise UserError if this user cannot listen on a port of 127.0.0.1; 0 is any port.

    `command` is what the message suggests to choose another port.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            fault = "is taken" if error.errno == errno.EADDRINUSE else f"({error.strerror})"
            raise UserError(f"port {port} of {HOST} {fault}; `{command}` takes another") from None


def answers(url: str) -> bool:
    """Return whether a server answers at its API's address within 2 s."""
    try:
        return requests.get(f"{url}/health", timeout=2).ok
    except requests.RequestException:
        return False


def serve(port: int, parent_pid: int, standing: bool) -> None:
    """Run the server in this process until its parent dies (called in a process of its own)."""
    die_with_parent(parent_pid)
    import uvicorn
    from prefect.server.api.server import create_app
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    # Around the app: Prefect's own services call the app inside the process by another host name.
    app = TrustedHostMiddleware(create_app(ephemeral=not standing), allowed_hosts=allowed_hosts())
    uvicorn.run(app, host=HOST, port=port, log_level="warning")


@contextmanager
def _running(server: Server) -> Iterator[Server]:
    try:
        server.start()
        # Prefect read the environment at import, so a change of it would come too late.
        settings = {PREFECT_API_URL: server.url, PREFECT_API_AUTH_STRING: server.secret}
        with temporary_settings(settings):
            yield server
    finally:
        server.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
