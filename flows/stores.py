"""Where runs are kept, and in one line what is away: MLflow's store or server, or Prefect's.

They are known by the names of their errors' types, and no library is imported for it: `main` asks
this of every error that it meets.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from tasks.core.errors import AffectGapError
from tasks.core.paths import Paths

# How MLflow, its database and Prefect say that they cannot be reached, each wrapped by others.
_LIBRARIES = ("mlflow", "requests", "sqlalchemy", "httpx", "prefect")
_MLFLOW = ("requests.exceptions.RequestException", "sqlalchemy.exc.OperationalError")
_PREFECT = ("httpx.HTTPError", "prefect.exceptions.PrefectException")
_LOCKED = ("SQLITE_BUSY", "SQLITE_LOCKED")
_UNAUTHORIZED = "401 Unauthorized"
_NOT_REACHED = "Failed to reach API"  # Prefect's own words, in a plain RuntimeError
_WIDTH = 200  # characters of what a library says


def behind(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that it came of, each once; of a group, the first."""
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        yield at
        group = isinstance(at, BaseExceptionGroup)
        at = at.exceptions[0] if group else at.__cause__ or at.__context__


def is_passing(error: BaseException) -> bool:
    """Tell whether an error came of a store that was away or locked: it may pass by itself.

    MLflow wraps what its connection said, and the ledger what SQLite said.
    """
    return any(
        _is_one_of(one, _MLFLOW) or getattr(one, "sqlite_errorname", "") in _LOCKED
        for one in behind(error)
    )


def told_as_away(error: BaseException) -> str:
    """Say in one line what, where and what to do, where a store or server was away; else ""."""
    found = [one for one in behind(error) if not isinstance(one, BaseExceptionGroup)]
    if not found or not _is_of_a_library(found[0]):  # a defect of ours, if met in such an outage
        return ""
    for one in found:
        if _is_one_of(one, _MLFLOW):
            return _line("MLflow", "MLFLOW_TRACKING_URI", "mlruns/mlflow.db", one)
        if _is_one_of(one, _PREFECT) or _NOT_REACHED in str(one):
            return _line("Prefect", "PREFECT_API_URL", ".prefect/*server.log", one)
    return ""


@contextmanager
def in_one_line() -> Iterator[None]:
    """Raise, in place of an error of a store or server that is away, an AffectGapError."""
    try:
        yield
    except Exception as error:
        if told := told_as_away(error):
            raise AffectGapError(told) from error
        raise


def where_runs_are(paths: Paths) -> str:
    """Say where MLflow's runs are kept: the server's address, or the file and what shows it."""
    here = f"{paths.mlruns / 'mlflow.db'} (`make ui` shows them)"
    return _without_password(os.environ.get("MLFLOW_TRACKING_URI", "")) or here


def _line(what: str, variable: str, else_at: str, error: BaseException) -> str:
    named = os.environ.get(variable, "")
    told = " ".join(str(error).split())[:_WIDTH] or type(error).__name__
    if _UNAUTHORIZED in told and what == "Prefect":
        return (
            f"{_without_password(named) or else_at}: Prefect asks for a secret: set "
            "PREFECT_API_AUTH_STRING to the one that `affectgap status --ui` shows where it runs"
        )
    remedy = f"is {variable} what it should be? then" if named else f"see {else_at};"
    where = _without_password(named) or else_at
    return f"{where}: {what} does not answer ({told}); {remedy} run the same command again"


def _without_password(url: str) -> str:
    scheme, mark, rest = url.rpartition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}"


def _is_of_a_library(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] in _LIBRARIES or _NOT_REACHED in str(error)


def _is_one_of(error: BaseException, names: tuple[str, ...]) -> bool:
    return any(f"{base.__module__}.{base.__qualname__}" in names for base in type(error).__mro__)
