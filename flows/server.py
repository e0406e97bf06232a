"""A Prefect server on 127.0.0.1: for one command, or standing for `affectgap serve`.

It asks for a secret (`flows/access.py`) and answers to known host names only. Prefect's own
ephemeral server outlives a parent that is killed; this one is told to die with it. Where
`PREFECT_API_URL` names a server, that one is used, with the user's own `PREFECT_API_AUTH_STRING`.
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

from flows.access import SERVER_VARIABLE, allowed_hosts, new_secret, standing_secret
from tasks.core.errors import AffectGapError, UserError
from tasks.core.process import die_with_parent

HOST = "127.0.0.1"
_LOG, _STANDING_LOG = "server.log", "standing-server.log"
_LARGEST_LOG_BYTES = 10_000_000  # then it makes room for a new one, and one old one is kept
_STARTUP_S = 90
_STOP_S = 10
_LEASES = "prefect.server.concurrency.lease_storage.filesystem"


class Server:
    """A server in a process of its own.

    Parameters
    ----------
    root
        The project's folder; the server's log is `.prefect/server.log` below it, of a standing one
        `.prefect/standing-server.log`, in which each start has a heading.
    port
        Where it listens; None: a free one.
    standing
        True: with Prefect's scheduler, events and page; False: what one command needs.
    """

    def __init__(self, root: Path, port: int | None, standing: bool) -> None:
        self.port = port or _free_port()
        self.url = f"http://{HOST}:{self.port}/api"
        # What one command needs, nobody else has to know.
        self.secret = standing_secret(root) if standing else new_secret()
        self._root = root
        self._log = root / ".prefect" / (_STANDING_LOG if standing else _LOG)
        self._standing = standing
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers; raises AffectGapError, which names the log."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        call = f"serve({self.port}, {os.getpid()}, {self._standing})"
        allowed_hosts()  # a mistake there is said here, not in the server's log
        told = {
            SERVER_VARIABLE: self.secret,
            # Prefect's page asks the server where it is; unless told, it says port 4200.
            "PREFECT_SERVER_API_HOST": HOST,
            "PREFECT_SERVER_API_PORT": str(self.port),
            # By default a page of any address may read and change what is here.
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ",".join(self._own_addresses()),
            # In memory, a server that is started again would not know who is running.
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": _LEASES,
        }
        with self._open_log() as output:
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"from flows.server import serve; {call}"],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=self._root,
                env={**os.environ, **told},
                # Ctrl-C reaches a whole group of processes: the flow still says to the server that
                # it ends, and would try for minutes if that were gone.
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
        """Open the log: of a standing server the reason of an earlier death stays in it."""
        if not self._standing:
            return self._log.open("wb")
        if self._log.is_file() and self._log.stat().st_size > _LARGEST_LOG_BYTES:
            self._log.replace(self._log.with_suffix(".log.1"))
        output = self._log.open("ab")
        output.write(f"--- {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC: started\n".encode())
        output.flush()
        return output

    def _own_addresses(self) -> list[str]:
        return [f"http://{host}:{self.port}" for host in (HOST, "localhost")]

    def is_running(self) -> bool:
        """Tell whether its process is there."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """End it, by force where it takes too long."""
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
    """Start a server and point Prefect to it, or use the one that `PREFECT_API_URL` names.

    Parameters
    ----------
    root
        The project's folder.

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
    with _running(Server(root, None, standing=False)) as server:
        yield server.url


@contextmanager
def standing_server(root: Path, port: int) -> Iterator[Server]:
    """Start a server that schedules, on this port, and point Prefect to it; see `prefect_server`.

    Raises
    ------
    UserError
        Where something else listens on the port, or it is not for this user (those below 1024).
    """
    require_free_port(port, "affectgap serve --port N")
    with _running(Server(root, port, standing=True)) as server:
        yield server


def require_free_port(port: int, command: str) -> None:
    """Raise UserError where nothing of this user's can listen on a port of 127.0.0.1.

    Parameters
    ----------
    port
        0: any.
    command
        What takes another port.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            why = "is taken" if error.errno == errno.EADDRINUSE else f"({error.strerror})"
            raise UserError(f"port {port} of {HOST} {why}; `{command}` takes another") from None


def answers(url: str) -> bool:
    """Tell whether a server answers at the address of its API, within 2 s."""
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

    # Around the app, not in it: Prefect's own services call it by another name, inside the process.
    app = TrustedHostMiddleware(create_app(ephemeral=not standing), allowed_hosts=allowed_hosts())
    uvicorn.run(app, host=HOST, port=port, log_level="warning")


@contextmanager
def _running(server: Server) -> Iterator[Server]:
    try:
        server.start()
        # Prefect read the environment when it was imported; a change there comes too late.
        settings = {PREFECT_API_URL: server.url, PREFECT_API_AUTH_STRING: server.secret}
        with temporary_settings(settings):
            yield server
    finally:
        server.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
