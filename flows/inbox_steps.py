"""The steps of a batch that a crash can leave half done, and how each is finished or undone."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flows.dvc_files import add_to_dvc, mend_after_a_crash
from tasks.core.ledger import Ledger
from tasks.core.ledger_tables import Event
from tasks.core.paths import Paths
from tasks.core.text import clean, is_missing
from tasks.ingest.inbox.faults import ChangedError, RefusedError
from tasks.ingest.inbox.found import Found, found_at, stamp_of
from tasks.ingest.inbox.links import copy_linked
from tasks.ingest.inbox.moves import (
    move,
    quarantine,
    remove_leftovers,
    remove_sources,
    staged_for,
)
from tasks.ingest.inbox.reading import digest_of
from tasks.ingest.inbox.reasons import reason_text, write_reason
from tasks.ingest.intake import remove_leftovers as remove_incoming
from tasks.ingest.label import shown

STUCK = "cannot be moved to"  # said of a step that stays open

_NAME_LENGTH = 80


@dataclass(frozen=True)
class Taken:
    """What became of an entry of the inbox.

    Attributes
    ----------
    batch
        Its name in the ledger; the entry's own where it was left in the inbox.
    dataset
        Its data set, "" where that is not known.
    state
        `accepted`, `quarantined`, `repeated` (quarantined, for it was given before) or `not_ready`
        (left in the inbox).
    detail
        What there is to say, in one line.
    n_pictures
        Its usable pictures.
    """

    batch: str
    dataset: str
    state: Literal["accepted", "quarantined", "repeated", "not_ready"]
    detail: str
    n_pictures: int

    def __str__(self) -> str:
        words = {"repeated": "quarantined", "not_ready": "left in the inbox"}
        return f"{self.batch}: {words.get(self.state, self.state)}: {self.detail}"


def free_name(given: str, paths: Paths, ledger: Ledger) -> str:
    """Return a name for a batch that no other one has: the given one, or `NAME.2` and so on.

    A batch that a person puts back from the quarantine keeps its name.
    """
    states = dict(ledger.batches()[["batch", "state"]].itertuples(index=False))
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", shown(clean(given))).strip("-._")[:_NAME_LENGTH]
    if is_missing(plain):  # also "": nothing is left of a name in another script
        plain = f"batch-{plain}".rstrip("-")
    places = ledger.places()
    for number in range(1, len(places) + 1_000_000):
        name = plain if number == 1 else f"{plain}.{number}"
        there = [paths.quarantine / name, *paths.raw.glob(f"*/{name}"), paths.raw / name]
        # What is in the data keeps its name, also where its folder is missing.
        away = states.get(name) in ("quarantined", "withdrawn")
        back_again = away and not paths.at(places[name]).exists()
        if (name not in places or back_again) and not any(map(os.path.lexists, there)):
            return name
    raise AssertionError("unreachable: there are more names than batches")


def mend(paths: Paths, say: Callable[[str], None]) -> list[str]:
    """Finish or undo what a crash left of earlier steps.

    Nothing of them remains afterwards, except a step that fails once more: it is said, and tried
    again by the next call.

    Parameters
    ----------
    paths
        The project's paths.
    say
        Told each line.

    Returns
    -------
    list of str
        A line for each thing that was finished, undone, mended or removed.

    Raises
    ------
    AffectGapError
        As `mend_after_a_crash` and `track`.
    """
    ledger = Ledger(paths.ledger)
    lines = []
    for line in _mend_all(paths, ledger):
        say(line)
        lines.append(line)
    return lines


def _mend_all(paths: Paths, ledger: Ledger) -> Iterator[str]:
    for step in ledger.under_way():
        yield _try_to_mend(paths, ledger, step)
    for path in [*remove_leftovers(paths.inbox), *remove_incoming(paths)]:
        yield f"{path.relative_to(paths.root)}: removed, an intake was killed"
    # Here, for a torn file of a data set is made again from what lies in its folder then.
    yield from mend_after_a_crash(paths.root)
    yield from track(paths, ledger)


def _try_to_mend(paths: Paths, ledger: Ledger, step: Event) -> str:
    """Mend a step, or say why it stays open: others are not to wait for it."""
    try:
        return _mend(paths, ledger, step)
    except OSError as error:
        why = error.strerror or str(error)
    except (RefusedError, ChangedError) as error:
        why = "; ".join(map(str, error.args))
    return (
        f"{step.batch}: {STUCK} {step.detail['place']} ({why}); it is tried again at the next look"
    )


def finish(paths: Paths, ledger: Ledger, step: Event, sources: Sequence[Path]) -> None:
    """Carry out a move to the quarantine that the ledger says is under way.

    Parameters
    ----------
    paths, ledger
        The project's.
    step
        What was begun.
    sources
        What is still to be moved.
    """
    batch = str(step.batch)
    place = paths.at(step.detail["place"])
    if step.kind == "withdrawing":
        for source in sources:  # while DVC still tracks it
            copy_linked(source, cache_of(paths))
    quarantine(sources, place)
    write_reason(place, reason_text(batch, _facts(step), step.detail["reasons"], place))
    ledger.decide(batch, "withdrawn" if step.kind == "withdrawing" else "quarantined")


def undo(ledger: Ledger, batch: str, place: Path, source: Path, why: str) -> None:
    """Put a batch that was being taken in back to where it came from."""
    if place.exists():
        target = source
        while target.exists():  # its sender has begun another one of that name
            target = target.with_name(f"{target.name}.again")
        move(place, target)
    ledger.undo(batch, why)


def track(paths: Paths, ledger: Ledger) -> list[str]:
    """Have DVC look at the data sets whose batches moved; returns a line for each.

    Raises
    ------
    AffectGapError
        Where DVC could not; the next call does it again.
    """
    lines = []
    for dataset, batches in ledger.untracked().groupby("dataset"):
        if what_is_there(paths, str(dataset)):  # else it was removed as a whole
            add_to_dvc(paths, str(dataset))
            lines.append(f"data/raw/{dataset}: tracked by DVC")
        ledger.mark_tracked(batches["batch"].tolist())
    return lines


def what_is_there(paths: Paths, dataset: str) -> list[str]:
    """Return a data set's folder and DVC's file beside it, as far as they exist."""
    known = [paths.raw / dataset, paths.raw / f"{dataset}.dvc"]
    return [path.relative_to(paths.root).as_posix() for path in known if path.exists()]


def _mend(paths: Paths, ledger: Ledger, step: Event) -> str:
    if step.kind == "withdrawing":
        return _mend_withdrawal(paths, ledger, step)
    told = step.detail
    batch, place, source = str(step.batch), paths.at(told["place"]), paths.inbox / told["source"]
    found = found_at(source)
    mine = found is not None and stamp_of(found) == told["stamp"]
    if told["target"] == "accepted":
        if place.exists() and digest_of(place, cache_of(paths)) == told["digest"]:
            left = _leave_or_remove(found, told["digest"]) if found and mine else ""
            ledger.decide(batch, "accepted")
            done = "was moved into data/raw when intake was killed; now it is accepted"
            return f"{batch}: {done}{left}"
    elif mine or place.exists() or staged_for(place).exists():
        finish(paths, ledger, step, found.sources if found and mine else [])
        return f"{batch}: was on its way to quarantine when intake was killed; now it is there"
    undo(ledger, batch, place, source, "intake was killed")
    return f"{batch}: intake was killed before it was moved; it is looked at again"


def _leave_or_remove(found: Found, digest: str) -> str:
    """Remove what was copied; what its sender changed since is left, unmarked, which is said."""
    try:
        same = found.kind != "folder" or digest_of(found.path) == digest
    except RefusedError:
        same = False
    if same:
        remove_sources(found.sources)
        return ""
    found.mark.unlink()
    return f"; data/inbox/{shown(found.path.name)} has changed since and is left, without its mark"


def cache_of(paths: Paths) -> list[Path]:
    """Return where links in data/raw may lead: DVC's cache, with `cache.type symlink`."""
    return [paths.at(".dvc/cache")]


def _mend_withdrawal(paths: Paths, ledger: Ledger, step: Event) -> str:
    batch = str(step.batch)
    source, place = paths.at(ledger.places()[batch]), paths.at(step.detail["place"])
    if source.parent == paths.raw:  # a whole data set, removed by hand: only the reasons move
        finish(paths, ledger, step, [])
        return f"{batch}: its withdrawal was killed; now it is written down"
    there = source.exists() or place.exists() or staged_for(place).exists()
    finish(paths, ledger, step, [source] if source.exists() else [])
    where = "now it is in quarantine" if there else "but its folder is nowhere; look for it by hand"
    return f"{batch}: its withdrawal was killed; {where}"


def _facts(step: Event) -> list[str]:
    """Say what REASON.md says of a batch before the reasons."""
    told = step.detail
    if step.kind == "withdrawing":
        return [f"was part of the data and withdrawn, {step.at}"]
    facts = [f"given as data/inbox/{told['source']}", f"looked at {step.at}"]
    if told["dataset"]:
        facts.append(f"for the data set {told['dataset']}")
    if told["n_files"]:
        facts.append(f"{told['n_files']} files, {told['n_pictures']} of them usable pictures")
    return facts
