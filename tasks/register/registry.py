"""The registry: versions of the model in MLflow, and which one is in use.

Aliases of the registered model `affectgap`: `champion` is in use, `previous` is what `rollback`
goes back to, `challenger` was registered last. MLflow has no compare-and-set, so moves are made one
at a time under a lock (of this clone), and each is written down (a tag of the registered model)
before its first step: after a crash the next call finishes it. The alias `champion` moves last.
"""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from mlflow import MlflowClient

from tasks.core.errors import AffectGapError
from tasks.core.paths import Paths
from tasks.core.tracking import open_store
from tasks.register.moves import Move, OvertakenError, finish, make, way_back
from tasks.register.records import NOT_MADE, PROMOTED, ROLLED_BACK, append_record
from tasks.register.versions import (
    CHALLENGER,
    CHAMPION,
    KEY,
    NAME,
    PREVIOUS,
    Version,
    aliases_of,
    all_versions,
    alone_with_store,
    by_alias,
    find,
)

__all__ = [
    "CHALLENGER",
    "CHAMPION",
    "NAME",
    "PREVIOUS",
    "Version",
    "challenger",
    "champion",
    "fetch",
    "find_version",
    "finish_move",
    "previous",
    "promote",
    "register_challenger",
    "rollback",
    "set_tags",
    "versions",
]


def register_challenger(paths: Paths, folder: Path, details: Mapping[str, str]) -> Version:
    """Register a model's folder as a version, and give it the alias `challenger`.

    Parameters
    ----------
    paths
        The project's paths: data/split.parquet and reports/tables are those of the model's run.
    folder
        The model's folder, as `choose` writes it.
    details
        Tags for the version, such as the pass and its batches.

    Returns
    -------
    Version
        The one there is already, where the same weights, with the same seen pictures and cut in
        the same way, were registered before; a call that was killed is finished by the next.

    Raises
    ------
    ModelError, DataError
        One line: there is no model, or its run's tables are missing.
    """
    from tasks.register.card import write_cards
    from tasks.register.shipping import key_of, ship

    key = key_of(folder)
    with alone_with_store(paths) as client:
        same = [version for version in all_versions(client) if version.tags.get(KEY) == key]
        number = same[-1].number if same else ship(paths, client, NAME, folder, key)
        for name, text in details.items():
            client.set_model_version_tag(NAME, str(number), name, text)
        version = find(client, number)
        write_cards(paths, client, folder, number, version.run_id, version.tags)
        client.set_registered_model_alias(NAME, CHALLENGER, str(number))
        return find(client, number)


def champion(paths: Paths) -> Version | None:
    """Return the version in use, or None."""
    return by_alias(paths, CHAMPION)


def previous(paths: Paths) -> Version | None:
    """Return the version that `rollback` would go back to, or None."""
    return by_alias(paths, PREVIOUS)


def challenger(paths: Paths) -> Version | None:
    """Return the version that was registered last (it may be in use by now), or None."""
    return by_alias(paths, CHALLENGER)


def versions(paths: Paths) -> list[Version]:
    """Return all versions, oldest first."""
    return all_versions(open_store(paths)[0])


def find_version(paths: Paths, number: int) -> Version:
    """Return one version; raises ModelError where there is none of that number."""
    return find(open_store(paths)[0], number)


def set_tags(paths: Paths, number: int, tags: Mapping[str, str]) -> None:
    """Set tags of a version."""
    client, _ = open_store(paths)
    for name, text in tags.items():
        client.set_model_version_tag(NAME, str(number), name, text)


def fetch(paths: Paths, number: int) -> Path:
    """Return a folder with a version's files, each compared with what was registered.

    Parameters
    ----------
    paths
        The project's paths; the folder is work/registry/<number>, downloaded where it is not there
        or is damaged.
    number
        Which version.

    Returns
    -------
    Path
        With what `choose` wrote, and test.csv (the test split at registration: image_id,
        subject_id, batch) and groups.csv (recall by group in the model's own run).

    Raises
    ------
    ModelError
        One line: there is no such version, or the store has lost or damaged its files.
    """
    from tasks.register.kept_files import fetch_files

    client, _ = open_store(paths)
    version = find(client, number)
    return fetch_files(paths, client, number, version.run_id, version.tags)


def promote(paths: Paths, number: int, instead_of: int | None, decision_id: str = "") -> Version:
    """Put a version into use; `previous` is then the one that it takes the place of.

    A version that is in use already stays so. Killed at any point, the same call finishes it.

    Parameters
    ----------
    paths
        The project's paths.
    number
        Which version.
    instead_of
        The version that it was compared with, None for none: where another one has come into use
        since, nothing is moved, and a line `not_made` in promotions.csv says so.
    decision_id
        Of the line in promotions.csv that lets it through; "" where there is none.

    Raises
    ------
    ModelError, AffectGapError
        One line: there is no such version, or another one has come into use since.
    """
    fetch(paths, number)  # what cannot be read does not come into use
    with alone_with_store(paths) as client:
        finish(paths, client)
        version = find(client, number)  # raises where there is none
        in_use = aliases_of(client).get(CHAMPION)
        if in_use == number:
            return version
        if in_use != instead_of:
            _say_not_made(paths, client, number, instead_of, in_use)
        try:
            make(paths, client, Move(PROMOTED, in_use, number, in_use, decision_id))
        except OvertakenError as error:
            _say_not_made(paths, client, number, instead_of, error.by)
        return find(client, number)


def assert_rival(paths: Paths, number: int, instead_of: int | None) -> None:
    """Make sure that a version would take the place of the one that it was compared with.

    Asked before anything says that it comes into use; `promote` asks once more.

    Parameters
    ----------
    paths, number, instead_of
        See `promote`.

    Raises
    ------
    AffectGapError
        One line: another version has come into use since; a line `not_made` in promotions.csv says
        so too.
    """
    with alone_with_store(paths) as client:
        finish(paths, client)
        in_use = aliases_of(client).get(CHAMPION)
        if in_use not in (number, instead_of):
            _say_not_made(paths, client, number, instead_of, in_use)


def _say_not_made(
    paths: Paths, client: MlflowClient, number: int, instead_of: int | None, in_use: int | None
) -> NoReturn:
    """Write down that a version was let through and is not put into use, and raise."""
    rival = "the floors" if instead_of is None else f"version {instead_of}"
    now = "no version" if in_use is None else f"version {in_use}"
    told = f"version {number} was compared with {rival}, and {now} is in use since"
    if in_use is not None:
        row = {"version": in_use, "digest": find(client, in_use).digest, "previous": number}
        name = f"not-made-{number}-{in_use}-{secrets.token_hex(4)}"
        append_record(paths, {"action": NOT_MADE, "decision_id": name, "why": told, **row})
    raise AffectGapError(f"{told}; `affectgap promote` or the next pass judges it anew")


def rollback(paths: Paths, why: str = "", by: str = "") -> tuple[Version, Version]:
    """Put the previous version back into use, and write it into promotions.csv.

    Rolled back once more, the version that was in use before that one comes back; one that a
    rollback took out of use does not.

    Parameters
    ----------
    paths
        The project's paths.
    why, by
        Kept with the record.

    Returns
    -------
    tuple
        The version that was left, and the one now in use.

    Raises
    ------
    ModelError
        One line: nothing is in use, or there is nothing to go back to.
    AffectGapError
        One line: another clone changed what is in use at the same moment.
    """
    with alone_with_store(paths) as client:
        move = finish(paths, client)
        if move is None or move.action != ROLLED_BACK:
            move = way_back(paths, client, why, by)
            make(paths, client, move)
        assert move.left is not None
        return find(client, move.left), find(client, move.champion)


def finish_move(paths: Paths) -> str:
    """Finish what a killed `promote` or `rollback` began; returns what it was, "" for nothing."""
    with alone_with_store(paths) as client:
        move = finish(paths, client)
    return f"{move.action} version {move.champion}" if move else ""
