"""`affectgap models` and `affectgap rollback`: the model registry on the command line.

Each version is shown with its data batches. The names are stored as the version's tag `batches`, in
order of arrival.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from rich.table import Table
from rich.text import Text

from flows.ledger.ledger import Ledger
from tasks.core.gap_sentences import percent
from tasks.core.paths import Paths
from tasks.core.text import printable
from tasks.gate.decision import FROZEN, GROUP, NOT_JUDGED, Decision
from tasks.register.promotion_log import TAKES_OUT, last_record, read_records, taken_out
from tasks.register.registry import find_version, rollback, versions
from tasks.register.serve_settings import defects
from tasks.register.versions import Version

_NONE = "none"
_FEW = 6  # up to this many batches are all named
_MAX_CHANGES = 4  # names per direction that a longer list shows
_MAX_TAG = 1000  # characters
_HEADINGS = ("version", "alias", "registered", "weights", "worst group", "batches", "decision")


def batches_of(tags: Mapping[str, str]) -> list[str] | None:
    """Return the batches that a version was trained with; None if they were not recorded."""
    text = tags.get("batches")
    if not text:
        return None
    return [] if text == _NONE else text.split(", ")


def describe_batches(batches: Sequence[str] | None, before: Sequence[str] | None) -> str:
    """Describe the batches `batches` of a version, given those of the version `before` it.

    None means not recorded, or no version before. Few batches are named, as "spring, summer"; of
    many the number and the changes are given, as "12 batches, +autumn −spring".
    """
    if batches is None:
        return "–"
    if len(batches) <= _FEW:
        return ", ".join(batches) or _NONE
    count = f"{len(batches)} batches"
    if before is None:
        return count
    return f"{count}, {describe_changes(batches, before, _MAX_CHANGES) or 'as before'}"


def is_cut(batches: Sequence[str] | None) -> bool:
    """Return whether `describe_batches` leaves out names."""
    return batches is not None and len(batches) > _FEW


def describe_changes(batches: Sequence[str], before: Sequence[str], most: int | None = None) -> str:
    """Describe added and removed batches, at most `most` names each; "" if there are none."""
    current, former = set(batches), set(before)
    added = [name for name in batches if name not in former]
    removed = [name for name in before if name not in current]
    return " ".join([*_signed("+", added, most), *_signed("−", removed, most)])


def _signed(sign: str, names: Sequence[str], most: int | None) -> list[str]:
    some = [f"{sign}{name}" for name in names[:most]]
    left = len(names) - len(some)
    return [*some, f"({sign}{left} more)"] if left else some


def decision_tags(decision: Decision) -> dict[str, str]:
    """Return the challenger's worst group as tags of its version; "" if none was judged.

    The interval is Wilson's with each subject counted once, since images of one subject are alike.
    """
    from tasks.core.statistics.recalls import wilson  # imports statsmodels, which takes a second

    names = ("worst_group", "worst_recall", "worst_low", "worst_high", "worst_n", "worst_people")
    table, recall = decision.table, decision.worst_recall
    groups = table[(table["rule"] == GROUP) & (table["part"] == FROZEN)]
    small = groups.loc[groups["outcome"] == NOT_JUDGED, "group"]
    not_judged = f"{len(small)} of {len(groups)} groups: {', '.join(small)}" if len(small) else ""
    tags = dict.fromkeys(names, "")
    tags |= {"notice": decision.notice, "not_judged": not_judged[:_MAX_TAG]}
    rows = groups[groups["group"] == decision.worst_group]
    if rows.empty:
        return tags
    n, people = int(rows.iloc[0]["n"]), int(rows.iloc[0]["subjects"])
    confidence = float(decision.params.get("confidence", 0.95))
    low, high = wilson(np.array([recall * people]), np.array([people]), confidence)
    figures = (recall, float(low[0]), float(high[0]))
    values = (decision.worst_group, *(f"{share:.4f}" for share in figures), str(n), str(people))
    return tags | dict(zip(names, values, strict=True))


def describe_worst_group(tags: Mapping[str, str]) -> str:
    """Describe a version's worst group in one phrase; "" if its tags name none."""
    group, recall = tags.get("worst_group", ""), tags.get("worst_recall", "")
    if not group or not recall:
        return ""
    summary = f"{group} {percent(float(recall))}"
    if not tags.get("worst_n"):
        return f"{summary} (n and interval were not recorded)"
    low, high = (percent(float(tags[name])) for name in ("worst_low", "worst_high"))
    n = f"{tags['worst_n']} pictures of {tags['worst_people']} people"
    return f"{summary} ({low} to {high}; {n})"


def describe_untested_groups(tags: Mapping[str, str]) -> str:
    """Describe the groups that were too small to be judged; "" if there are none or unknown."""
    groups = tags.get("not_judged", "")
    return f"not judged, too few people or pictures: {groups}" if groups else ""


def notices(tags: Iterable[Mapping[str, str]]) -> list[str]:
    """Return the notices that belong to the figures of these versions, without repeats."""
    return list(dict.fromkeys(notice for version in tags if (notice := version.get("notice"))))


def models_table(paths: Paths) -> Table:
    """Return a table of the model versions, newest first.

    The worst group's recall comes with its interval, images and subjects (from the gate, else held
    out in the model's own run). Of many batches, the table shows the number and what changed since
    the version before. Its caption has the data's notice, and the versions whose serving code has a
    known defect.
    """
    known, records = versions(paths), read_records(paths)
    decided = records[~records["action"].isin(TAKES_OUT)]
    title = None if known else "no model is registered yet"
    batches = [batches_of(version.tags) for version in known]
    notes = [
        *notices(version.tags for version in known),
        *_version_hint(batches),
        *defect_lines(known),
    ]
    caption = Text("\n".join(map(printable, notes)), style="table.caption") if notes else None
    table = Table(box=None, pad_edge=False, title=title, caption=caption, caption_justify="left")
    for heading in _HEADINGS:
        table.add_column(heading, overflow="fold")
    rows = zip(known, batches, [None, *batches], strict=False)
    for version, current, before in reversed([*rows]):
        record = taken_out(records, version.number, version.digest)
        if record is None:  # a version restored by a rollback keeps its own decision
            record = last_record(decided, version.number, version.digest)
        table.add_row(
            str(version.number),
            ", ".join(version.aliases),
            f"{version.created_at:%Y-%m-%d %H:%M}",
            version.digest,
            describe_worst_group(version.tags),
            describe_batches(current, before),
            _decision(version, record),
        )
    return table


def batches_lines(paths: Paths, number: int) -> list[str]:
    """List every batch of a version, and what changed since the version before.

    Raises ModelError if there is no such version.
    """
    version = find_version(paths, number)
    title, batches = f"version {number} ({version.digest})", batches_of(version.tags)
    if batches is None:
        return [f"{title}: its training batches were not recorded"]
    withdrawn = set(withdrawn_batches(paths, version))
    word = "batch" if len(batches) == 1 else "batches"
    count = f"{len(batches)} {word}" if batches else "no batch"
    lines = [f"  {name}{' (withdrawn now)' if name in withdrawn else ''}" for name in batches]
    earlier = [other for other in versions(paths) if other.number < number][-1:]
    for last in earlier:
        if (before := batches_of(last.tags)) is not None:
            changed = describe_changes(batches, before) or "the same batches"
            lines.append(f"against version {last.number}: {changed}")
    return [f"{title} was trained with {count}", *lines]


def defect_lines(known: Sequence[Version]) -> list[str]:
    """List the versions whose serving code has a known defect, newest first, and the remedy."""
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
    """Renew the serving code of a version.

    Raises ModelError if there is no such version, or its files are missing or damaged.
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
    """Put the previous version back into use, and return the lines to print.

    Raises ModelError if nothing is in use or there is no previous version.
    """
    left, now = rollback(paths, why, by)
    worst = describe_worst_group(now.tags)
    seen = withdrawn_batches(paths, now)
    return [
        f"version {now.number} ({now.digest}) is in use again; version {left.number} "
        f"({left.digest}) was left" + (f"; worst group: {worst}" if worst else ""),
        *(notices([now.tags]) if worst else []),
        *([f"it was trained with what is withdrawn now: {', '.join(seen)}"] if seen else []),
        f"recorded in {paths.promotions.relative_to(paths.root)}; a server that is running answers "
        "with the version that it loaded: start it again",
    ]


def approval_command(number: int) -> str:
    """Return the command that promotes a waiting version."""
    return f"affectgap promote --approve {number} --by NAME --why REASON"


def withdrawn_batches(paths: Paths, version: Version) -> list[str]:
    """Return the batches that a version was trained with and that are withdrawn now."""
    ledger = Ledger(paths.ledger)
    batches, trainings = ledger.batches(), ledger.trainings()
    # Versions may share weights, and a new store counts from 1 again.
    same = trainings["version"].isna() | (trainings["version"] == version.number)
    seen = trainings.loc[(trainings["digest"] == version.digest) & same, "batch"]
    withdrawn = (batches["state"] == "withdrawn") & batches["batch"].isin(seen)
    return [str(name) for name in batches.loc[withdrawn, "batch"]]


def _version_hint(batches: Sequence[list[str] | None]) -> list[str]:
    cut = any(is_cut(names) for names in batches)
    return ["every batch of a version: affectgap models --version N"] if cut else []


def _decision(version: Version, record: pd.Series | None) -> str:
    if record is None:
        return "not judged yet"
    text = f"{record['action'].replace('_', ' ')} {record['at'][:10]}"
    text += f" by {record['by']}" if record["by"] else ""
    reason = record["why"] or version.tags.get("reasons", "")
    return f"{text}: {reason}" if reason else text
