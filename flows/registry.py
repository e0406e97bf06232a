"""`affectgap models` and `affectgap rollback`: the registry for people."""

from collections.abc import Mapping

import pandas as pd
from rich.table import Table

from tasks.core.headline import percent
from tasks.core.paths import Paths
from tasks.register.records import last_records
from tasks.register.registry import Version, rollback, versions

_HEADINGS = ("version", "alias", "registered", "weights", "worst group", "batches", "decision")


def models_table(paths: Paths) -> Table:
    """List the versions of the model, newest first.

    Returns
    -------
    Table
        Version, aliases, when it was registered, the weights' digest, the worst group's recall (by
        the gate, else held out in the model's own run), the batches that came with it, and the
        last decision.
    """
    known, records = versions(paths), last_records(paths)
    table = Table(box=None, pad_edge=False, title=None if known else "no model is registered yet")
    for heading in _HEADINGS:
        table.add_column(heading, overflow="fold")
    before: dict[int, set[str]] = {}
    batches: set[str] = set()
    for version in known:
        before[version.number] = batches
        batches = batches | _batches(version.tags)
    for version in reversed(known):
        record = records.get(version.number)
        new = sorted(_batches(version.tags) - before[version.number])
        table.add_row(
            str(version.number),
            ", ".join(version.aliases),
            f"{version.created_at:%Y-%m-%d %H:%M}",
            version.digest,
            _worst(version, record),
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
    worst = _worst(now, None)
    return [
        f"version {now.number} ({now.digest}) is in use again; version {left.number} "
        f"({left.digest}) was left" + (f"; worst group: {worst}" if worst else ""),
        f"recorded in {paths.promotions.relative_to(paths.root)}; a server that is running answers "
        "with the version that it loaded: start it again",
    ]


def _batches(tags: Mapping[str, str]) -> set[str]:
    text = tags.get("batches", "none")
    return set() if text == "none" else set(text.split(", "))


def _worst(version: Version, record: pd.Series | None) -> str:
    group, recall = "", ""
    if record is not None:
        group, recall = record["worst_group"], record["worst_recall"]
    group = group or version.tags.get("worst_group", "")
    recall = recall or version.tags.get("worst_recall", "")
    return f"{group} {percent(float(recall))}" if group and recall else ""


def _decision(version: Version, record: pd.Series | None) -> str:
    if record is None:
        return "not judged yet"
    text = f"{record['action'].replace('_', ' ')} {record['at'][:10]}"
    text += f" by {record['by']}" if record["by"] else ""
    reason = record["why"] or version.tags.get("reasons", "")
    return f"{text}: {reason}" if reason else text
