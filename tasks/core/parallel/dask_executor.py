"""A Dask cluster as an executor: several machines on one shared file system do a stage's work.

What travels are calls of the project's own functions; images and models are read by the workers
from the paths that this process names. Every call is checked to meet the same code and libraries
as here, since another version would give other bytes, and a worker does one call at a time,
whatever its number of threads: dlib's detector and torch's threads are a process's own. When a
worker dies, the scheduler gives its calls to another. Messages are pickles, and whoever reaches the
scheduler's port has its workers run code: beyond this machine the address must be `tls://`, with
the certificates that Dask's own settings name.
"""

import hashlib
import ipaddress
import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tasks.core.errors import UserError

_ROOT = Path(__file__).resolve().parents[3]
_LIBRARIES = (  # those whose version shows in the bytes of an output
    *("numpy", "pillow", "opencv-python-headless", "dlib-bin", "torch", "onnxruntime"),
    *("scikit-image", "scikit-learn", "lime"),
)
_ANSWER_S = 15  # for the scheduler to answer
_WORKERS_S = 60  # for a worker to join, at the start and after all have died
_LOOK_EVERY_S = 5.0
_TURN = threading.Lock()
_TLS_ADVICE = (
    "; set DASK_DISTRIBUTED__COMM__TLS__CA_FILE, DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT and "
    "DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY"
)
PLAINTEXT_VARIABLE = "AFFECTGAP_DASK_PLAINTEXT"  # "allowed": a network that is trusted as a whole


class Cluster(Executor):
    """The workers of a Dask scheduler.

    Parameters
    ----------
    address
        Of the scheduler, such as tcp://127.0.0.1:8786 or tls://10.0.0.3:8786.

    Raises
    ------
    UserError
        One line where the address is of another machine and not encrypted, Dask is not installed,
        no scheduler answers or no worker joins.
    """

    def __init__(self, address: str) -> None:
        require_encryption(address)
        try:
            from distributed import Client, KilledWorker
        except ImportError:
            raise UserError(
                "AFFECTGAP_DASK is set, but `distributed` is not installed: `uv sync --extra scale`"
            ) from None
        logging.getLogger("distributed").setLevel(logging.ERROR)  # of workers that come and go
        self._address, self._killed = address, KilledWorker
        self._counted: tuple[float, int] = (0.0, 1)
        client: Callable[..., Any] = Client
        try:
            self._client = client(address, timeout=_ANSWER_S, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:  # TypeError: TLS without certificates
            advice = _TLS_ADVICE if address.startswith("tls:") else ""
            raise UserError(
                f"AFFECTGAP_DASK: no scheduler answers at {address} ({error}){advice}"
            ) from None
        try:
            self._client.wait_for_workers(1, timeout=_WORKERS_S)
        except TimeoutError:
            self._client.close()
            raise UserError(self._without_workers()) from None
        self._executor = self._client.get_executor(pure=False)

    @property
    def workers(self) -> int:
        """Return how many workers there are, as counted a moment ago."""
        if time.monotonic() - self._counted[0] > _LOOK_EVERY_S:
            self._counted = time.monotonic(), max(1, len(self._client.nthreads()))
        return self._counted[1]

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Send a call to a worker; its future raises UserError where the workers cannot do it."""
        sent = self._executor.submit(run_in_turn, digest_of_code(), fn, *args, **kwargs)
        return _Sent(sent, self)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Disconnect from the cluster; calls that are not done are canceled."""
        self._executor.shutdown(wait=wait and not cancel_futures)
        self._client.close()

    def wait_for(self, sent: "Future[Any]") -> Any:
        """Wait for a call's result; raises UserError where the cluster cannot give one."""
        while True:
            ended = sent.done()  # looked at first: a call may end just as the waiting does
            try:
                return sent.result(_LOOK_EVERY_S)
            except TimeoutError:
                if ended:
                    raise  # the call's own
                self._require_workers()
            except self._killed as error:
                raise UserError(f"AFFECTGAP_DASK: workers died at a call ({error})") from None
            except CancelledError:
                raise UserError("AFFECTGAP_DASK: the scheduler dropped the work") from None
            except (ModuleNotFoundError, RuntimeError) as error:
                if isinstance(error, RuntimeError) and "deserialization" not in str(error):
                    raise
                raise UserError(
                    "AFFECTGAP_DASK: the scheduler or a worker does not find the code; start "
                    "both with the project's environment"
                ) from None

    def _require_workers(self) -> None:
        """Wait a while for a worker where all are gone."""
        try:
            if not self._client.nthreads():
                self._client.wait_for_workers(1, timeout=_WORKERS_S)
        except TimeoutError:
            raise UserError(self._without_workers()) from None

    def _without_workers(self) -> str:
        return (
            f"AFFECTGAP_DASK: the scheduler at {self._address} has no workers; start some with "
            f"`dask worker {self._address} --nthreads 1` in a checkout on the shared file system"
        )


def require_encryption(address: str) -> None:
    """Raise UserError for the plaintext address of another machine, unless that is allowed."""
    parts = urlsplit(address if "://" in address else f"tcp://{address}")
    if parts.scheme == "tls" or os.environ.get(PLAINTEXT_VARIABLE) == "allowed":
        return
    if not _is_this_machine(parts.hostname or ""):
        raise UserError(
            f"AFFECTGAP_DASK: {address} is another machine and not encrypted: whoever is on the "
            "network could run code here; use tls:// (docs/scaling.md), or set "
            f"{PLAINTEXT_VARIABLE}=allowed where you trust all of it"
        )


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Sent(Future[Any]):
    """A call under way; waiting for it sees to it that there are workers."""

    def __init__(self, sent: "Future[Any]", cluster: Cluster) -> None:
        super().__init__()
        self._sent, self._cluster = sent, cluster

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the call's result; without a limit of its own."""
        return self._cluster.wait_for(self._sent)


def run_in_turn(expected: str, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """On a worker: do a call, one at a time, if code and libraries are the caller's."""
    if digest_of_code() != expected:
        raise UserError(
            "AFFECTGAP_DASK: a worker has other code or libraries than this process; start the "
            "workers again, from the same checkout and environment"
        )
    with _TURN:
        return work(*args, **kwargs)


@lru_cache(maxsize=1)
def digest_of_code() -> str:
    """Return a digest of the project's code, as it was when this process first asked."""
    digest = hashlib.sha256()
    for path in sorted((_ROOT / "tasks").rglob("*.py")):
        digest.update(path.relative_to(_ROOT).as_posix().encode() + path.read_bytes())
    for name in _LIBRARIES:
        digest.update(f"{name} {_version(name)}\n".encode())
    return digest.hexdigest()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
