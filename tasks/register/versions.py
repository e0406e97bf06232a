"""Versions of the registered model as MLflow keeps them: reading them, one writer at a time."""

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
from tasks.core.tracking import open_store

NAME = "affectgap"  # of the registered model
CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
DIGEST, KEY = "digest", "key"  # tags of a version
REPLACED = "replaced"  # tag: what was in use before a version came into use for the first time
PUT_BY = "put_by"  # tag: decision_id of the line that put a version into use last


@dataclass(frozen=True)
class Version:
    """A registered version of the model.

    Attributes
    ----------
    number
        As MLflow counts them, from 1.
    digest
        The first 12 hex digits of the weights' sha256: what predictions call the model's version.
    run_id
        The tracking run that holds its files.
    aliases
        Those of `champion`, `previous` and `challenger` that point to it.
    tags
        What is known about it, as text.
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
def alone_with_store(paths: Paths) -> Iterator[MlflowClient]:
    """Hold the registry's lock; others wait."""
    client, _ = open_store(paths)
    place = paths.work("registry", "lock")
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(place):
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
    """Return the version of each alias, all read at once."""
    model = registered_model(client)
    return {} if model is None else {name: int(number) for name, number in model.aliases.items()}


def all_versions(client: MlflowClient) -> list[Version]:
    """Return all versions, oldest first."""
    if registered_model(client) is None:
        return []
    found, token = [], None
    while True:
        page = client.search_model_versions(f"name = '{NAME}'", page_token=token)
        found += list(page)
        token = page.token
        if not token:
            break
    aliases = aliases_of(client)
    return sorted((_read(entry, aliases) for entry in found), key=lambda version: version.number)


def find(client: MlflowClient, number: int) -> Version:
    """Return one version; raises ModelError where there is none of that number."""
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
