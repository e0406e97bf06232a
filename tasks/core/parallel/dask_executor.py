"""A Dask cluster as an executor, for several machines with a shared file system.

Only calls of the project's functions are sent; workers read images and models from the paths in
the arguments. Each worker checks that it has the same code and libraries as the caller, since other
versions would write other bytes. It runs one call at a time, whatever its number of threads,
because dlib's detector and torch's threads belong to the process. If a worker dies, the scheduler
sends its calls to another. Messages are pickles, so that anyone who reaches the scheduler's port
can run code on the workers: the address of another machine must be `tls://`, with the certificates
in Dask's settings.
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
_LIBRARIES = (  # whose version affects the bytes of an output
    *("numpy", "pillow", "opencv-python-headless", "dlib-bin", "torch", "onnxruntime"),
    *("scikit-image", "scikit-learn", "lime"),
)
_ANSWER_S = 15  # for the scheduler to answer
_WORKERS_S = 60  # for a worker to join, at the start and after all have died
_POLL_S = 5.0
_CALL_LOCK = threading.Lock()
_TLS_ADVICE = (
    "; set DASK_DISTRIBUTED__COMM__TLS__CA_FILE, DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT and "
    "DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY"
)
PLAINTEXT_VARIABLE = "AFFECTGAP_DASK_PLAINTEXT"  # "allowed": the whole network is trusted


class Cluster(Executor):
    """Executor on the workers of a Dask scheduler, such as tls://10.0.0.3:8786.

    Raises
    ------
    UserError
        The address is of another machine and not encrypted, Dask is not installed, no scheduler
        answers, or no worker joins.
    """

    def __init__(self, address: str) -> None:
        require_encryption(address)
        try:
            from distributed import Client, KilledWorker
        except ImportError:
            raise UserError(
                "AFFECTGAP_DASK is set, but `distributed` is not installed: `uv sync --extra scale`"
            ) from None
        logging.getLogger("distributed").setLevel(logging.ERROR)  # it logs every worker that joins
        self._address, self._killed_error = address, KilledWorker
        self._worker_count: tuple[float, int] = (0.0, 1)  # time and number
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
            raise UserError(self._no_workers()) from None
        self._executor = self._client.get_executor(pure=False)

    @property
    def workers(self) -> int:
        """Return the number of workers, updated every few seconds."""
        if time.monotonic() - self._worker_count[0] > _POLL_S:
            self._worker_count = time.monotonic(), max(1, len(self._client.nthreads()))
        return self._worker_count[1]

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Send a call to a worker; its future raises UserError if the cluster fails."""
        future = self._executor.submit(run_in_turn, digest_of_code(), fn, *args, **kwargs)
        return _DaskFuture(future, self)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Disconnect from the cluster and cancel unfinished calls."""
        self._executor.shutdown(wait=wait and not cancel_futures)
        self._client.close()

    def wait_for(self, future: "Future[Any]") -> Any:
        """Wait for a call's result; raises UserError if the cluster fails."""
        while True:
            done = future.done()  # checked first: the call may end just after the timeout
            try:
                return future.result(_POLL_S)
            except TimeoutError:
                if done:
                    raise  # by the call itself
                self._require_workers()
            except self._killed_error as error:
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
        """Wait for a worker to join if all are gone."""
        try:
            if not self._client.nthreads():
                self._client.wait_for_workers(1, timeout=_WORKERS_S)
        except TimeoutError:
            raise UserError(self._no_workers()) from None

    def _no_workers(self) -> str:
        return (
            f"AFFECTGAP_DASK: the scheduler at {self._address} has no workers; start some with "
            f"`dask worker {self._address} --nthreads 1` in a checkout on the shared file system"
        )


def require_encryption(address: str) -> None:
    """Raise UserError for an unencrypted address of another machine, unless that is allowed."""
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


class _DaskFuture(Future[Any]):
    """A call in progress; waiting for its result checks that there are workers."""

    def __init__(self, future: "Future[Any]", cluster: Cluster) -> None:
        super().__init__()
        self._future, self._cluster = future, cluster

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the call's result; `timeout` is ignored."""
        return self._cluster.wait_for(self._future)


def run_in_turn(expected: str, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run a call on a worker, one at a time, if its code and libraries match the caller's."""
    if digest_of_code() != expected:
        raise UserError(
            "AFFECTGAP_DASK: a worker has other code or libraries than this process; start the "
            "workers again, from the same checkout and environment"
        )
    with _CALL_LOCK:
        return work(*args, **kwargs)


@lru_cache(maxsize=1)
def digest_of_code() -> str:
    """Return a digest of the project's code and libraries, computed once per process."""
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
