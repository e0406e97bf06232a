"""What was decided about the model in use and not carried out to the end, and a store that is gone.

Every pass, `affectgap promote` and `affectgap doctor` begin with it: nothing is judged against a
model that is not the one in use.
"""

import os
from typing import Any

import pandas as pd

from flows import git_versions
from flows.policy import Params
from tasks.core.errors import AffectGapError, ModelError, UserError
from tasks.core.ledger import Ledger
from tasks.core.params import load_section
from tasks.core.paths import Paths


def has_store(paths: Paths) -> bool:
    """Tell whether anything was tracked yet; asking MLflow would make its database."""
    return bool(os.environ.get("MLFLOW_TRACKING_URI")) or (paths.mlruns / "mlflow.db").is_file()


def finish_promotion(paths: Paths) -> list[str]:
    """End a move of the aliases, and put into use what promotions.csv says is in use.

    Returns
    -------
    list of str
        What was done; empty where nothing was missing.
    """
    if not has_store(paths):
        return []
    from tasks.register import registry
    from tasks.register.records import TAKES_OUT, in_use, read_records

    lines = [f"finished: {told}"] if (told := registry.finish_move(paths)) else []
    records = read_records(paths)
    row, champion = in_use(records), registry.champion(paths)
    if row is None or row["action"] in TAKES_OUT or not _is_there(paths, row):
        return lines
    number = int(row["version"])
    if champion is not None and (champion.number == number or not _is_explained(records, champion)):
        return lines  # the same, or an older registry/ was checked out: it decides nothing
    before = int(row["previous"]) if row["previous"] else None
    try:
        if champion is not None:
            registry.assert_rival(paths, number, before)
    except AffectGapError as error:
        return [*lines, f"not put into use: {error}"]
    why = "Decided before, and stopped before it was put into use"
    version = registry.find_version(paths, number)
    lines += keep_version(paths, version, str(row["action"]), why, in_use=True)
    registry.promote(paths, number, before if champion else None, str(row["decision_id"]))
    Ledger(paths.ledger).mark_promoted(version.digest, number)
    return [*lines, f"finished: version {number} is put into use, as was decided before"]


def assert_own_store(paths: Paths) -> None:
    """Raise where nothing is in use though something was: no model would be the first ever.

    Raises
    ------
    UserError
        One line: the store is another one than that of promotions.csv.
    """
    from tasks.register.records import in_use, read_records
    from tasks.register.registry import champion

    row = in_use(read_records(paths))
    if row is not None and champion(paths) is None and not _is_there(paths, row):
        raise UserError(
            f"{paths.promotions.relative_to(paths.root)} says version {row['version']} is in use, "
            "this store has none: set MLFLOW_TRACKING_URI back, or bring back mlruns/"
        )


def keep_version(paths: Paths, version: Any, decision: str, why: str, in_use: bool) -> list[str]:
    """Commit what a decision left, and tag what comes into use; returns the lines to show."""
    policy = load_section(paths.params, "retrain", Params)
    subject = f"affectgap: version {version.number} {decision}"
    message = f"{subject}\n\n{why}\nWeights {version.digest}\n"
    lines = git_versions.keep(paths, policy, message)
    if in_use:
        lines += git_versions.tag_version(paths, policy, version.number, message)
    return lines


def _is_explained(records: pd.DataFrame, champion: Any) -> bool:
    """Tell whether the lines hold the one that put the model in use into use."""
    from tasks.register.records import INTO_USE
    from tasks.register.versions import PUT_BY

    moves = records[records["action"].isin(INTO_USE)]
    put_by = champion.tags.get(PUT_BY, "")
    if put_by and put_by not in set(moves["decision_id"]):
        return False
    return str(champion.number) in set(moves["version"])


def _is_there(paths: Paths, row: Any) -> bool:
    """Tell whether the store has the version of a line: the number, with these weights."""
    from tasks.register.registry import find_version

    try:
        digest = find_version(paths, int(row["version"])).digest
    except ModelError:
        return False
    return row["digest"] in ("", digest)
