"""`affectgap models` and `affectgap rollback`: the registry for people."""

from collections.abc import Sequence

import pandas as pd
from rich.table import Table
from rich.text import Text

from flows.version_batches import batches_of, batches_words, changes_words, is_cut
from flows.worst_group import notices, worst_words
from tasks.core.ledger import Ledger
from tasks.core.paths import Paths
from tasks.core.text import printable
from tasks.register.records import TAKES_OUT, last_record, read_records, taken_out
from tasks.register.registry import Version, find_version, rollback, versions
from tasks.register.serving_defects import defects

_HEADINGS = ("version", "alias", "registered", "weights", "worst group", "batches", "decision")


def models_table(paths: Paths) -> Table:
    """List the versions of the model, newest first.

    Returns
    -------
    Table
        Version, aliases, when it was registered, the weights' digest, the worst group's recall with
        its interval, pictures and people (by the gate, else held out in the model's own run), the
        batches it was trained with (of many: how many, and what is another than in the version
        before), and the last decision. Below it the data's notice, and which versions are served
        with code that has a known defect.
    """
    known, records = versions(paths), read_records(paths)
    decided = records[~records["action"].isin(TAKES_OUT)]
    title = None if known else "no model is registered yet"
    batches = [batches_of(version.tags) for version in known]
    below = [
        *notices(version.tags for version in known),
        *_how_to_see_all(batches),
        *defect_lines(known),
    ]
    caption = Text("\n".join(map(printable, below)), style="table.caption") if below else None
    table = Table(box=None, pad_edge=False, title=title, caption=caption, caption_justify="left")
    for heading in _HEADINGS:
        table.add_column(heading, overflow="fold")
    rows = zip(known, batches, [None, *batches], strict=False)
    for version, own, before in reversed([*rows]):
        record = taken_out(records, version.number, version.digest)
        if record is None:  # what a rollback came back to keeps its own decision
            record = last_record(decided, version.number, version.digest)
        table.add_row(
            str(version.number),
            ", ".join(version.aliases),
            f"{version.created_at:%Y-%m-%d %H:%M}",
            version.digest,
            worst_words(version.tags),
            batches_words(own, before),
            _decision(version, record),
        )
    return table


def batches_lines(paths: Paths, number: int) -> list[str]:
    """Name every batch that a version was trained with, and what is another than before it.

    Raises
    ------
    ModelError
        One line where there is no such version.
    """
    version = find_version(paths, number)
    named, own = f"version {number} ({version.digest})", batches_of(version.tags)
    if own is None:
        return [f"{named}: which batches it was trained with was not kept"]
    gone = set(withdrawn_batches(paths, version))
    told = f"{len(own)} {'batch' if len(own) == 1 else 'batches'}" if own else "no batch"
    lines = [f"  {name}{' (withdrawn now)' if name in gone else ''}" for name in own]
    earlier = [one for one in versions(paths) if one.number < number][-1:]
    for last in earlier:
        if (before := batches_of(last.tags)) is not None:
            changed = changes_words(own, before) or "the same batches"
            lines.append(f"against version {last.number}: {changed}")
    return [f"{named} was trained with {told}", *lines]


def defect_lines(known: Sequence[Version]) -> list[str]:
    """Name the versions whose serving code has a known defect, newest first, and the remedy."""
    found: dict[str, list[str]] = {}
    for version in reversed(known):
        for text in defects(version.tags):
            found.setdefault(text, []).append(f"{version.number}{_aliases(version)}")
    return [
        f"registered with serving code that {text}: {_versions(which)}; "
        "renew it: affectgap models --reregister N"
        for text, which in found.items()
    ]


def reregister_command(paths: Paths, number: int) -> list[str]:
    """Renew the code that a version is served with.

    Raises
    ------
    ModelError
        One line where there is no such version, or its files are lost or damaged.
    """
    from tasks.register.renewal import renew_serving_code  # imports the networks

    version = renew_serving_code(paths, number)
    return [
        f"version {number} ({version.digest}){_aliases(version)} has today's serving code; its "
        "weights, number, aliases and decisions are unchanged",
        "a server that is running answers with the code that it loaded: start it again",
    ]


def _versions(which: Sequence[str]) -> str:
    return f"version{'s' * (len(which) > 1)} {', '.join(which)}"


def _aliases(version: Version) -> str:
    return f" ({', '.join(version.aliases)})" if version.aliases else ""


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


def _how_to_see_all(batches: Sequence[list[str] | None]) -> list[str]:
    cut = any(is_cut(own) for own in batches)
    return ["every batch of a version: affectgap models --version N"] if cut else []


def _decision(version: Version, record: pd.Series | None) -> str:
    if record is None:
        return "not judged yet"
    text = f"{record['action'].replace('_', ' ')} {record['at'][:10]}"
    text += f" by {record['by']}" if record["by"] else ""
    reason = record["why"] or version.tags.get("reasons", "")
    return f"{text}: {reason}" if reason else text
