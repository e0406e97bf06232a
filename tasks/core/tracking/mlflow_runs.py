"""MLflow tracking: one run per executed stage, nested under the run of its pipeline.

The store is SQLite in `mlruns/` unless `MLFLOW_TRACKING_URI` names another. The parent run is
passed in `AFFECTGAP_PIPELINE_RUN`: MLflow's `MLFLOW_RUN_ID` would resume it instead of nesting.
"""

import hashlib
import json
import logging
import os
import posixpath
import re
import signal
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import alembic.config
import mlflow
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunStatus, RunTag, ViewType
from mlflow.exceptions import MlflowException
from sqlalchemy import Engine, event

from tasks.core.files import write_text
from tasks.core.labels import credit_line
from tasks.core.parallel.process import is_dead, process_name
from tasks.core.params import load_yaml
from tasks.core.paths import Paths, sqlite_url
from tasks.core.stages import StageResult
from tasks.core.tracking.versions import commit_of, has_changes, versions

EXPERIMENT = "affectgap"
PARENT_VARIABLE = "AFFECTGAP_PIPELINE_RUN"
_PROCESS_TAG = "affectgap.process"
_TIMEOUT_PRAGMA = "PRAGMA busy_timeout = 120000"  # ms
_LONGEST_NAME = 200  # characters of a key; MLflow allows 250
_BATCH = 100  # MLflow's limit of params per call; those of metrics and tags are not lower


class KilledError(BaseException):
    """The process received SIGTERM; its run ends as KILLED."""


@dataclass(frozen=True)
class Run:
    """An open run of the tracking store."""

    client: MlflowClient
    run_id: str

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log nested params with dotted names."""
        flat = [Param(_name(key), str(value)) for key, value in _flat(params)]
        for start in range(0, len(flat), _BATCH):
            self.client.log_batch(self.run_id, params=flat[start : start + _BATCH])

    def log_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags; a stage's `@`, as in `explain@base`, becomes a dash."""
        for start in range(0, len(tags), _BATCH):
            batch = list(tags.items())[start : start + _BATCH]
            self.client.log_batch(
                self.run_id,
                tags=[RunTag(_name(key.replace("@", "-")), text) for key, text in batch],
            )

    def log_result(self, result: StageResult) -> None:
        """Log a stage's metrics, curves and artifacts."""
        metrics = [Metric(_name(key), value, 0, 0) for key, value in result.metrics.items()]
        for key, curve in result.series.items():
            metrics += [Metric(_name(key), value, 0, step) for step, value in curve]
        for start in range(0, len(metrics), _BATCH):
            self.client.log_batch(self.run_id, metrics=metrics[start : start + _BATCH])
        for artifact in result.artifacts:
            self.log_artifact(artifact)

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Copy a file or a folder to the run's artifacts."""
        if path.is_dir():
            self.client.log_artifacts(self.run_id, str(path), folder or path.name)
        else:
            self.client.log_artifact(self.run_id, str(path), folder)


def store_uri(paths: Paths) -> str:
    """Return the address of the tracking store: `MLFLOW_TRACKING_URI`, or the file in `mlruns/`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or sqlite_url(paths.mlruns / "mlflow.db")


def open_store(paths: Paths) -> tuple[MlflowClient, str]:
    """Open the tracking store, or create it, and return its client and experiment id.

    A lock prevents processes that start together from creating the database at the same time.
    """
    logging.getLogger("mlflow").setLevel(logging.WARNING)  # it logs every table that it creates
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it also raises errors
    _wait_for_locks()
    _allow_percent_signs()
    paths.mlruns.mkdir(exist_ok=True)
    uri = store_uri(paths)
    with FileLock(paths.mlruns / ".lock"):
        client = MlflowClient(tracking_uri=uri)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is not None:
            return client, experiment.experiment_id
        local = uri.startswith("sqlite")
        location = (paths.mlruns / "artifacts").as_uri() if local else None
        return client, client.create_experiment(EXPERIMENT, artifact_location=location)


@contextmanager
def open_run(paths: Paths, name: str, params: Mapping[str, Any], kind: str) -> Iterator[Run]:
    """Open a run with its params and provenance.

    It ends as FINISHED, FAILED (an exception) or KILLED (SIGTERM, Ctrl-C). `kind` is `stage` or
    `pipeline`; a stage is nested under the run in `AFFECTGAP_PIPELINE_RUN`.
    """
    client, experiment_id = open_store(paths)
    tags = {"affectgap.kind": kind, _PROCESS_TAG: process_name(os.getpid()), **provenance(paths)}
    parent = os.environ.get(PARENT_VARIABLE)
    if kind == "stage" and parent:
        tags["mlflow.parentRunId"] = parent
    run_id = client.create_run(experiment_id, run_name=name, tags=tags).info.run_id
    run = Run(client, run_id)
    run.log_params(params)
    in_main = threading.current_thread() is threading.main_thread()  # others cannot set handlers
    before = signal.signal(signal.SIGTERM, _on_sigterm) if in_main else None
    try:
        yield run
    except (KilledError, KeyboardInterrupt):
        _end(client, run_id, RunStatus.KILLED)
        raise
    except BaseException:
        _end(client, run_id, RunStatus.FAILED)
        raise
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, before)
    client.set_terminated(run_id)


def _end(client: MlflowClient, run_id: str, status: int) -> None:
    """End a failed run; on a full disk the next command does it (`close_dead_runs`)."""
    with suppress(MlflowException):
        client.set_terminated(run_id, RunStatus.to_string(status))


def close_dead_runs(paths: Paths) -> int:
    """End runs whose process on this machine is gone as KILLED; returns their number."""
    client, experiment_id = open_store(paths)
    open_runs = client.search_runs(
        [experiment_id], "attributes.status = 'RUNNING'", ViewType.ACTIVE_ONLY, max_results=1000
    )
    dead = [run for run in open_runs if is_dead(run.data.tags.get(_PROCESS_TAG, ""))]
    for run in dead:
        client.set_terminated(run.info.run_id, RunStatus.to_string(RunStatus.KILLED))
    return len(dead)


def write_run_record(paths: Paths, stage: str, run: Run) -> None:
    """Write the run's id as an output of the stage, so that restored outputs have it too."""
    experiment = run.client.get_run(run.run_id).info.experiment_id
    record = {"stage": stage, "run_id": run.run_id, "experiment_id": experiment}
    write_text(paths.run_record(stage), json.dumps(record, indent=2) + "\n")


def read_run_record(paths: Paths, stage: str) -> str | None:
    """Return the id of the run that made a stage's outputs, or None without a record."""
    try:
        record = json.loads(paths.run_record(stage).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return str(record["run_id"])


def provenance(paths: Paths) -> dict[str, str]:
    """Return the git commit, the versions and the data sets' notices as tags."""
    tags = {
        "mlflow.source.git.commit": commit_of(paths.root) or "none",
        "git.uncommitted_changes": str(has_changes(paths.root)).lower(),
        **{f"version.{name}": version for name, version in versions().items()},
    }
    if notice := _notice(paths):
        tags["notice"] = notice
    return tags


def _notice(paths: Paths) -> str:
    """Return the notices and credits of the data sets in params.yaml."""
    if not paths.params.is_file():
        return ""
    section = load_yaml(paths.params).get("ingest")
    return credit_line(section.get("datasets", ())) if isinstance(section, dict) else ""


def _name(key: str) -> str:
    """Convert a key to the characters that MLflow allows.

    Names of groups may have any characters. If any is replaced or cut, a digest is appended to keep
    the name unique.
    """
    name = re.sub(r"[^\w\-. /:]", "-", key, flags=re.ASCII)
    is_path = posixpath.normpath(name) == name and not name.startswith(("/", ".."))
    if name == key and is_path and len(name) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{name.replace('/', '-').strip('.')[:_LONGEST_NAME]}-{digest}"


def _flat(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in params.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{name}.")
        else:
            yield name, value


def _wait_for_locks() -> None:
    """Make MLflow wait two minutes for a lock on its SQLite file.

    By default it waits 20 s in its sessions, which cannot be configured, and 5 s elsewhere, such as
    when it checks for its tables.
    """
    if not event.contains(Engine, "before_cursor_execute", _extend_timeout):
        event.listen(Engine, "before_cursor_execute", _extend_timeout, retval=True)
        event.listen(Engine, "connect", _set_timeout)


def _allow_percent_signs() -> None:
    """Allow MLflow to find its migrations if the path of its installation contains a `%`.

    It passes this path to a configparser without escaping it, unlike the database's.
    """
    if "%" in mlflow.__file__ and not issubclass(alembic.config.Config, _EscapingConfig):
        alembic.config.Config = _EscapingConfig  # type: ignore[misc]


class _EscapingConfig(alembic.config.Config):
    def set_main_option(self, name: str, value: str) -> None:
        escaped = value.replace("%", "%%") if name == "script_location" else value
        super().set_main_option(name, escaped)


def _set_timeout(connection: object, _record: object) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.execute(_TIMEOUT_PRAGMA)


def _extend_timeout(
    connection: object, cursor: object, statement: str, parameters: object, *_args: object
) -> tuple[str, object]:
    return statement.replace("PRAGMA busy_timeout = 20000", _TIMEOUT_PRAGMA), parameters


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    raise KilledError
