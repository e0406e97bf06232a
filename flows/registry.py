"""`affectgap models` and `affectgap rollback`: the registry for people."""

from collections.abc import Mapping

import pandas as pd
from rich.table import Table

from flows.worst_group import notices, worst_words
from tasks.core.ledger import Ledger
from tasks.core.paths import Paths
from tasks.register.records import TAKES_OUT, last_record, read_records, taken_out
from tasks.register.registry import Version, rollback, versions

_HEADINGS = ("version", "alias", "registered", "weights", "worst group", "batches", "decision")


def models_table(paths: Paths) -> Table:
    """List the versions of the model, newest first.

    Returns
    -------
    Table
        Version, aliases, when it was registered, the weights' digest, the worst group's recall with
        its interval, pictures and people (by the gate, else held out in the model's own run), the
        batches that came with it, and the last decision. Below it the data's notice.
    """
    known, records = versions(paths), read_records(paths)
    own = records[~records["action"].isin(TAKES_OUT)]
    title = None if known else "no model is registered yet"
    said = "\n".join(notices(version.tags for version in known)) or None
    table = Table(box=None, pad_edge=False, title=title, caption=said, caption_justify="left")
    for heading in _HEADINGS:
        table.add_column(heading, overflow="fold")
    before: dict[int, set[str]] = {}
    batches: set[str] = set()
    for version in known:
        before[version.number] = batches
        batches = batches | _batches(version.tags)
    for version in reversed(known):
        record = taken_out(records, version.number, version.digest)
        if record is None:  # what a rollback came back to keeps its own decision
            record = last_record(own, version.number, version.digest)
        new = sorted(_batches(version.tags) - before[version.number])
        table.add_row(
            str(version.number),
            ", ".join(version.aliases),
            f"{version.created_at:%Y-%m-%d %H:%M}",
            version.digest,
            worst_words(version.tags),
            ", ".join(f"+{name}" for name in new) or "–",
            _decision(version, record),
        )
    return table


def rollback_command(paths: Paths, why: str, by: str) -> list[str]:
    """Put the previous version back into use, and say so.

    Raises
    ------
    ModelError
        One line where nothing is in use or there is nothing to go back to.
    """
    left, now = rollback(paths, why, by)
    worst = worst_words(now.tags)
    seen = withdrawn_batches(paths, now)
    return [
        f"version {now.number} ({now.digest}) is in use again; version {left.number} "
        f"({left.digest}) was left" + (f"; worst group: {worst}" if worst else ""),
        *(notices([now.tags]) if worst else []),
        *([f"it was trained with what is withdrawn now: {', '.join(seen)}"] if seen else []),
        f"recorded in {paths.promotions.relative_to(paths.root)}; a server that is running answers "
        "with the version that it loaded: start it again",
    ]


def withdrawn_batches(paths: Paths, version: Version) -> list[str]:
    """Name the batches that a version was trained with and that are withdrawn now."""
    ledger = Ledger(paths.ledger)
    batches, trainings = ledger.batches(), ledger.trainings()
    # Versions may share weights, and a store that was begun anew counts from 1 again.
    same = trainings["version"].isna() | (trainings["version"] == version.number)
    seen = trainings.loc[(trainings["digest"] == version.digest) & same, "batch"]
    gone = (batches["state"] == "withdrawn") & batches["batch"].isin(seen)
    return [str(name) for name in batches.loc[gone, "batch"]]


def _batches(tags: Mapping[str, str]) -> set[str]:
    text = tags.get("batches") or "none"
    return set() if text == "none" else set(text.split(", "))


def _decision(version: Version, record: pd.Series | None) -> str:
    if record is None:
        return "not judged yet"
    text = f"{record['action'].replace('_', ' ')} {record['at'][:10]}"
    text += f" by {record['by']}" if record["by"] else ""
    reason = record["why"] or version.tags.get("reasons", "")
    return f"{text}: {reason}" if reason else text
