"""Completes promotions that a crash interrupted, and detects a lost model store.

Every pass, `affectgap promote` and `affectgap doctor` start with it, so that no model is compared
with one that is not in use.
"""

import os
from typing import Any

import pandas as pd

from flows.ledger.ledger import Ledger
from flows.registry import git_commits
from flows.retraining.trigger_policy import Params
from tasks.core.errors import AffectGapError, ModelError, UserError
from tasks.core.params import load_section
from tasks.core.paths import Paths


def has_store(paths: Paths) -> bool:
    """Return whether anything was tracked yet, without creating MLflow's database."""
    return bool(os.environ.get("MLFLOW_TRACKING_URI")) or (paths.mlruns / "mlflow.db").is_file()


def complete_promotion(paths: Paths) -> list[str]:
    """Complete a move of the aliases, and promote the version that promotions.csv names.

    Returns lines on what was done; empty if nothing was missing.
    """
    if not has_store(paths):
        return []
    from tasks.register import registry
    from tasks.register.promotion_log import TAKES_OUT, in_use, read_records

    moved = registry.finish_move(paths)
    lines = [f"finished: {moved}"] if moved else []
    records = read_records(paths)
    row, champion = in_use(records), registry.champion(paths)
    if row is None or row["action"] in TAKES_OUT or not _is_in_store(paths, row):
        return lines
    number = int(row["version"])
    if champion is not None and (champion.number == number or not _is_explained(records, champion)):
        return lines  # up to date, or an older registry/ is checked out
    before = int(row["previous"]) if row["previous"] else None
    try:
        if champion is not None:
            registry.assert_rival(paths, number, before)
    except AffectGapError as error:
        return [*lines, f"not put into use: {error}"]
    why = "Decided before, and stopped before it was put into use"
    digest = registry.find_version(paths, number).digest
    lines += commit_version(paths, number, digest, str(row["action"]), why, in_use=True)
    registry.promote(paths, number, before if champion else None, str(row["decision_id"]))
    Ledger(paths.ledger).mark_promoted(digest, number)
    return [*lines, f"finished: version {number} is put into use, as was decided before"]


def assert_store_has_champion(paths: Paths) -> None:
    """Raise UserError if the store has no model in use but promotions.csv names one.

    Otherwise a new store would accept any model as the first one.
    """
    from tasks.register.promotion_log import in_use, read_records
    from tasks.register.registry import champion

    row = in_use(read_records(paths))
    if row is not None and champion(paths) is None and not _is_in_store(paths, row):
        raise UserError(
            f"{paths.promotions.relative_to(paths.root)} says version {row['version']} is in use, "
            "this store has none: set MLFLOW_TRACKING_URI back, or restore mlruns/"
        )


def commit_version(
    paths: Paths, number: int, digest: str, decision: str, why: str, in_use: bool
) -> list[str]:
    """Commit a decision, and tag a version that comes into use; return the lines to print."""
    policy = load_section(paths.params, "retrain", Params)
    body = f"{why}\nWeights {digest}".strip()
    message = f"affectgap: version {number} {decision}\n\n{body}\n"
    lines = git_commits.commit_results(paths, policy, message)
    if in_use:
        lines += git_commits.tag_version(paths, policy, number, message)
    return lines


def _is_explained(records: pd.DataFrame, champion: Any) -> bool:
    """Return whether the records include the promotion of the model in use."""
    from tasks.register.promotion_log import INTO_USE
    from tasks.register.versions import PUT_BY

    moves = records[records["action"].isin(INTO_USE)]
    put_by = champion.tags.get(PUT_BY, "")
    if put_by and put_by not in set(moves["decision_id"]):
        return False
    return str(champion.number) in set(moves["version"])


def _is_in_store(paths: Paths, row: Any) -> bool:
    """Return whether the store has a record's version: its number, with the same weights."""
    from tasks.register.registry import find_version

    try:
        digest = find_version(paths, int(row["version"])).digest
    except ModelError:
        return False
    return row["digest"] in ("", digest)
