"""The model registry in MLflow: versions and the aliases that say which one is in use.

Aliases of the registered model `affectgap`: `champion` is the current version, `previous` the
target of `rollback`, `challenger` the version registered last. MLflow has no compare-and-set, so
transitions are serialized by a lock (per clone) and noted as a tag of the registered model before
their first step: after a crash the next call completes them. The alias `champion` moves last.
"""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from mlflow import MlflowClient

from tasks.core.errors import AffectGapError
from tasks.core.paths import Paths
from tasks.core.tracking.mlflow_runs import open_store
from tasks.register.alias_transitions import Move, OvertakenError, finish, make, way_back
from tasks.register.promotion_log import NOT_MADE, PROMOTED, ROLLED_BACK, append_record
from tasks.register.versions import (
    CHALLENGER,
    CHAMPION,
    KEY,
    NAME,
    PREVIOUS,
    Version,
    aliases_of,
    all_versions,
    by_alias,
    find,
    locked_store,
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

    If the same weights, training images and crop settings were registered before, return that
    version. The next call completes one that was killed.

    Parameters
    ----------
    paths
        data/split.parquet and reports/tables must be those of the model's run.
    folder
        As `choose` writes it.
    details
        Tags for the version, such as the training run and its batches.

    Raises
    ------
    ModelError, DataError
        If there is no model, or tables of its run are missing.
    """
    from tasks.register.card import write_cards
    from tasks.register.package_model import key_of, ship

    key = key_of(folder)
    with locked_store(paths) as client:
        same = [version for version in all_versions(client) if version.tags.get(KEY) == key]
        number = same[-1].number if same else ship(paths, client, NAME, folder, key)
        for name, text in details.items():
            client.set_model_version_tag(NAME, str(number), name, text)
        version = find(client, number)
        write_cards(paths, client, folder, number, version.run_id, version.tags)
        client.set_registered_model_alias(NAME, CHALLENGER, str(number))
        return find(client, number)


def champion(paths: Paths) -> Version | None:
    """Return the current version, or None."""
    return by_alias(paths, CHAMPION)


def previous(paths: Paths) -> Version | None:
    """Return the target of `rollback`, or None."""
    return by_alias(paths, PREVIOUS)


def challenger(paths: Paths) -> Version | None:
    """Return the version that was registered last (it may be the champion by now), or None."""
    return by_alias(paths, CHALLENGER)


def versions(paths: Paths) -> list[Version]:
    """Return all versions, oldest first."""
    return all_versions(open_store(paths)[0])


def find_version(paths: Paths, number: int) -> Version:
    """Return one version; raises ModelError if there is none of that number."""
    return find(open_store(paths)[0], number)


def set_tags(paths: Paths, number: int, tags: Mapping[str, str]) -> None:
    """Set tags of a version."""
    client, _ = open_store(paths)
    for name, text in tags.items():
        client.set_model_version_tag(NAME, str(number), name, text)


def fetch(paths: Paths, number: int) -> Path:
    """Return a folder with a version's verified files.

    It is work/registry/<number>, downloaded if missing or damaged. It has the files that `choose`
    wrote, test.csv (the test split at registration) and groups.csv (recall by group in the model's
    run).

    Raises
    ------
    ModelError
        If there is no such version, or the store has lost or damaged its files.
    """
    from tasks.register.version_artifacts import fetch_files

    client, _ = open_store(paths)
    version = find(client, number)
    return fetch_files(paths, client, number, version.run_id, version.tags)


def promote(paths: Paths, number: int, instead_of: int | None, decision_id: str = "") -> Version:
    """Make a version the champion; the former champion becomes `previous`.

    Promoting the champion again does nothing. If killed at any point, the same call completes it.

    Parameters
    ----------
    instead_of
        The version that it was compared with, None for none. If the champion is another one by
        now, nothing is moved, and a line `not_made` is added to promotions.csv.
    decision_id
        Of the line in promotions.csv that approves it; "" for none.

    Raises
    ------
    ModelError, AffectGapError
        If there is no such version, or another one became the champion.
    """
    fetch(paths, number)  # a version whose files cannot be read is not promoted
    with locked_store(paths) as client:
        finish(paths, client)
        version = find(client, number)
        in_use = aliases_of(client).get(CHAMPION)
        if in_use == number:
            return version
        if in_use != instead_of:
            _reject_outdated(paths, client, number, instead_of, in_use)
        try:
            make(paths, client, Move(PROMOTED, in_use, number, in_use, decision_id))
        except OvertakenError as error:
            _reject_outdated(paths, client, number, instead_of, error.by)
        return find(client, number)


def assert_rival(paths: Paths, number: int, instead_of: int | None) -> None:
    """Check that the champion is still the version that `number` was compared with.

    Called before a promotion is announced; `promote` checks again.

    Raises
    ------
    AffectGapError
        If another version became the champion; a line `not_made` is added to promotions.csv.
    """
    with locked_store(paths) as client:
        finish(paths, client)
        in_use = aliases_of(client).get(CHAMPION)
        if in_use not in (number, instead_of):
            _reject_outdated(paths, client, number, instead_of, in_use)


def _reject_outdated(
    paths: Paths, client: MlflowClient, number: int, instead_of: int | None, in_use: int | None
) -> NoReturn:
    """Log that a version passed but is not promoted, and raise."""
    compared = "the floors" if instead_of is None else f"version {instead_of}"
    now = "no version" if in_use is None else f"version {in_use}"
    reason = f"version {number} was compared with {compared}, and {now} is in use since"
    if in_use is not None:
        row = {"version": in_use, "digest": find(client, in_use).digest, "previous": number}
        name = f"not-made-{number}-{in_use}-{secrets.token_hex(4)}"
        append_record(paths, {"action": NOT_MADE, "decision_id": name, "why": reason, **row})
    raise AffectGapError(f"{reason}; `affectgap promote` or the next pass judges it anew")


def rollback(paths: Paths, why: str = "", by: str = "") -> tuple[Version, Version]:
    """Make the previous version the champion, and log it in promotions.csv.

    Further rollbacks go back further, but never to a version that was itself rolled back.

    Returns
    -------
    tuple
        The former and the current version.

    Raises
    ------
    ModelError
        If there is no champion, or no previous version.
    AffectGapError
        If another clone moved the champion at the same moment.
    """
    with locked_store(paths) as client:
        move = finish(paths, client)
        if move is None or move.action != ROLLED_BACK:
            move = way_back(paths, client, why, by)
            make(paths, client, move)
        assert move.left is not None
        return find(client, move.left), find(client, move.champion)


def finish_move(paths: Paths) -> str:
    """Complete an interrupted `promote` or `rollback`; return its description, "" for none."""
    with locked_store(paths) as client:
        move = finish(paths, client)
    return f"{move.action} version {move.champion}" if move else ""
