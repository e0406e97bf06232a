"""Reads versions of the registered model from MLflow; serializes writers by a lock."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException

from tasks.core.errors import ModelError
from tasks.core.paths import Paths
from tasks.core.tracking.mlflow_runs import open_store

NAME = "affectgap"  # of the registered model
CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
DIGEST, KEY = "digest", "key"  # tags of a version
REPLACED = "replaced"  # tag: the champion before the first promotion of a version
PUT_BY = "put_by"  # tag: decision_id of the record of a version's last promotion


@dataclass(frozen=True)
class Version:
    """A registered version of the model.

    Attributes
    ----------
    number
        MLflow's version number, from 1.
    digest
        The first 12 hex digits of the weights' sha256; `model_version` in predictions.
    run_id
        The tracking run with its files.
    aliases
        Those of `champion`, `previous` and `challenger` that point to it.
    created_at
        In UTC.
    """

    number: int
    digest: str
    run_id: str
    aliases: tuple[str, ...]
    tags: Mapping[str, str]
    created_at: datetime


@contextmanager
def locked_store(paths: Paths) -> Iterator[MlflowClient]:
    """Hold the registry's lock, and create the registered model if needed."""
    client, _ = open_store(paths)
    lock = paths.work("registry", "lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        if registered_model(client) is None:
            client.create_registered_model(NAME)
        yield client


def by_alias(paths: Paths, alias: str) -> Version | None:
    """Return the version that an alias points to, or None."""
    client, _ = open_store(paths)
    number = aliases_of(client).get(alias)
    return None if number is None else find(client, number)


def registered_model(client: MlflowClient) -> RegisteredModel | None:
    """Return the registered model with its tags and aliases; None before the first version."""
    try:
        return client.get_registered_model(NAME)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def aliases_of(client: MlflowClient) -> dict[str, int]:
    """Return the version number of each alias, in one consistent read."""
    model = registered_model(client)
    return {} if model is None else {name: int(number) for name, number in model.aliases.items()}


def all_versions(client: MlflowClient) -> list[Version]:
    """Return all versions, oldest first."""
    if registered_model(client) is None:
        return []
    entries, token = [], None
    while True:
        page = client.search_model_versions(f"name = '{NAME}'", page_token=token)
        entries += list(page)
        token = page.token
        if not token:
            break
    aliases = aliases_of(client)
    return sorted((_read(entry, aliases) for entry in entries), key=lambda version: version.number)


def find(client: MlflowClient, number: int) -> Version:
    """Return one version; raises ModelError if there is none of that number."""
    try:
        entry = client.get_model_version(NAME, str(number))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise ModelError(
            f"there is no version {number} of the model; `affectgap models` lists them"
        ) from None
    return _read(entry, aliases_of(client))


def _read(entry: ModelVersion, aliases: Mapping[str, int]) -> Version:
    number = int(entry.version)
    mine = tuple(name for name in (CHAMPION, PREVIOUS, CHALLENGER) if aliases.get(name) == number)
    created = datetime.fromtimestamp(entry.creation_timestamp / 1000, UTC)
    digest = entry.tags.get(DIGEST, "")
    return Version(number, digest, entry.run_id or "", mine, dict(entry.tags), created)
