"""Translates outages of MLflow and Prefect into one-line errors.

They are recognized by the names of their error types, without an import of the libraries, since
`main` checks every error here.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from tasks.core.errors import AffectGapError
from tasks.core.paths import Paths

# Errors of MLflow, its database and Prefect if they cannot be reached; others may wrap them.
_LIBRARIES = ("mlflow", "requests", "sqlalchemy", "httpx", "prefect")
_MLFLOW = ("requests.exceptions.RequestException", "sqlalchemy.exc.OperationalError")
_PREFECT = ("httpx.HTTPError", "prefect.exceptions.PrefectException")
_LOCKED = ("SQLITE_BUSY", "SQLITE_LOCKED")
_UNAUTHORIZED = "401 Unauthorized"
_NOT_REACHED = "Failed to reach API"  # Prefect's message in a plain RuntimeError
_WIDTH = 200  # characters of a library's message


def error_chain(error: BaseException) -> Iterator[BaseException]:
    """Walk the chain of an error's causes, without repeats; of a group only the first member."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        is_group = isinstance(current, BaseExceptionGroup)
        current = current.exceptions[0] if is_group else current.__cause__ or current.__context__


def is_temporary(error: BaseException) -> bool:
    """Return whether an error comes from a store that was away or locked, and so may be temporary.

    MLflow wraps its connection's errors, and the ledger those of SQLite.
    """
    return any(
        _has_type(link, _MLFLOW) or getattr(link, "sqlite_errorname", "") in _LOCKED
        for link in error_chain(error)
    )


def outage_message(error: BaseException) -> str:
    """Return what is away, where, and what to do; "" if the error is no outage."""
    chain = [link for link in error_chain(error) if not isinstance(link, BaseExceptionGroup)]
    if not chain or not _is_from_library(chain[0]):  # a defect of ours
        return ""
    for link in chain:
        if _has_type(link, _MLFLOW):
            return _outage_message("MLflow", "MLFLOW_TRACKING_URI", "mlruns/mlflow.db", link)
        if _has_type(link, _PREFECT) or _NOT_REACHED in str(link):
            return _outage_message("Prefect", "PREFECT_API_URL", ".prefect/*server.log", link)
    return ""


@contextmanager
def translate_outages() -> Iterator[None]:
    """Translate an outage of a store or server into an AffectGapError."""
    try:
        yield
    except Exception as error:
        if outage := outage_message(error):
            raise AffectGapError(outage) from error
        raise


def runs_location(paths: Paths) -> str:
    """Return where MLflow stores its runs: a server's address, or a file."""
    here = f"{paths.mlruns / 'mlflow.db'} (`make ui` shows them)"
    return _without_password(os.environ.get("MLFLOW_TRACKING_URI", "")) or here


def _outage_message(what: str, variable: str, log: str, error: BaseException) -> str:
    url = _without_password(os.environ.get(variable, ""))
    message = " ".join(str(error).split())[:_WIDTH] or type(error).__name__
    if _UNAUTHORIZED in message and what == "Prefect":
        return (
            f"{url or log}: Prefect asks for a secret: set PREFECT_API_AUTH_STRING to the one that "
            "`affectgap status --ui` shows where it runs"
        )
    remedy = f"is {variable} what it should be? then" if url else f"see {log};"
    return f"{url or log}: {what} does not answer ({message}); {remedy} run the same command again"


def _without_password(url: str) -> str:
    scheme, mark, rest = url.rpartition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}"


def _is_from_library(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] in _LIBRARIES or _NOT_REACHED in str(error)


def _has_type(error: BaseException, names: tuple[str, ...]) -> bool:
    return any(f"{base.__module__}.{base.__qualname__}" in names for base in type(error).__mro__)
