"""Recovery after a crash: completes or undoes the recorded steps of a batch."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flows.intake.atomic_moves import (
    copy_linked,
    move,
    quarantine,
    remove_leftovers,
    remove_sources,
    staging_folder,
)
from flows.intake.entries import (
    BatchRejectedError,
    BatchStillChangingError,
    InboxEntry,
    inbox_entry,
    stamp_of,
)
from flows.intake.place_images import remove_leftovers as remove_incoming
from flows.intake.rejection_notice import reason_text, write_reason
from flows.intake.validate_batch import ReadOptions, digest_of
from flows.ledger.events import Event
from flows.ledger.ledger import Ledger
from flows.pipeline.dvc_repair import add_to_dvc, repair_after_crash
from tasks.core.paths import Paths
from tasks.core.text import clean, is_missing
from tasks.ingest.label import printable_path
from tasks.ingest.stage import SCAN_CACHE, Params

PENDING_MOVE = "cannot be moved to"  # in the line of a step that stays open

_NAME_LENGTH = 80


@dataclass(frozen=True)
class IntakeOutcome:
    """The outcome for one entry of the inbox.

    `batch` is the name in the ledger, or the entry's own if it stays in the inbox (`not_ready`). A
    `repeated` batch is quarantined because it was delivered before. `dataset` is "" if unknown.
    """

    batch: str
    dataset: str
    state: Literal["accepted", "quarantined", "repeated", "not_ready"]
    detail: str
    n_pictures: int

    def __str__(self) -> str:
        words = {"repeated": "quarantined", "not_ready": "left in the inbox"}
        return f"{self.batch}: {words.get(self.state, self.state)}: {self.detail}"


def unique_batch_name(given: str, paths: Paths, ledger: Ledger) -> str:
    """Return an unused batch name: the given one, or `NAME.2` and so on.

    A batch that a person puts back from the quarantine keeps its name.
    """
    states = dict(ledger.batches()[["batch", "state"]].itertuples(index=False))
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", printable_path(clean(given))).strip("-._")[
        :_NAME_LENGTH
    ]
    if is_missing(plain):  # or "", for a name in another script
        plain = f"batch-{plain}".rstrip("-")
    places = ledger.places()
    for number in range(1, len(places) + 1_000_000):
        name = plain if number == 1 else f"{plain}.{number}"
        taken = [paths.quarantine / name, *paths.raw.glob(f"*/{name}"), paths.raw / name]
        # Accepted batches keep their name, even if their folder is missing.
        away = states.get(name) in ("quarantined", "withdrawn")
        put_back = away and not paths.at(places[name]).exists()
        if (name not in places or put_back) and not any(map(os.path.lexists, taken)):
            return name
    raise AssertionError("unreachable: there are more names than batches")


@dataclass(frozen=True)
class Repair:
    """What became of a step that a crash interrupted; `done` is false if a person must look."""

    where: str  # a batch, a folder or a file
    what: str
    remedy: str = ""
    done: bool = True

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f"; {self.remedy}" if self.remedy else "")


def recover(paths: Paths, say: Callable[[str], None]) -> list[Repair]:
    """Complete or undo earlier steps that a crash interrupted, and return what was done.

    A step that fails once more is reported and tried again by the next call. Raises AffectGapError
    as `repair_after_crash` and `track` do.
    """
    ledger = Ledger(paths.ledger)
    repairs = []
    for repair in _repair_all(paths, ledger):
        say(str(repair))
        repairs.append(repair)
    return repairs


def _repair_all(paths: Paths, ledger: Ledger) -> Iterator[Repair]:
    for step in ledger.under_way():
        yield _try_to_repair(paths, ledger, step)
    for path in [*remove_leftovers(paths.inbox), *remove_incoming(paths)]:
        yield Repair(str(path.relative_to(paths.root)), "removed, an intake was killed")
    # Last: a torn `.dvc` file is rebuilt from its folder, which must be complete by then.
    for line in repair_after_crash(paths.root):
        yield Repair("DVC", line)
    for dataset in track(paths, ledger):
        yield Repair(f"data/raw/{dataset}", "tracked by DVC")


def _try_to_repair(paths: Paths, ledger: Ledger, step: Event) -> Repair:
    """Repair a step, or return why it stays open: others must not wait for it."""
    try:
        return _repair(paths, ledger, step)
    except OSError as error:
        reason = error.strerror or str(error)
    except (BatchRejectedError, BatchStillChangingError) as error:
        reason = "; ".join(map(str, error.args))
    place = step.detail["place"]
    remedy = "it is retried at the next poll"
    return Repair(str(step.batch), f"{PENDING_MOVE} {place} ({reason})", remedy, done=False)


def finish(paths: Paths, ledger: Ledger, step: Event, sources: Sequence[Path]) -> None:
    """Carry out a move to the quarantine that the ledger has begun.

    `sources` are the files and folders that are still to be moved.
    """
    batch = str(step.batch)
    place = paths.at(step.detail["place"])
    if step.kind == "withdrawing":
        for source in sources:  # while DVC still tracks it
            copy_linked(source, cache_of(paths))
    quarantine(sources, place)
    write_reason(place, reason_text(batch, _facts(step), step.detail["reasons"], place))
    ledger.decide(batch, "withdrawn" if step.kind == "withdrawing" else "quarantined")


def undo(ledger: Ledger, batch: str, place: Path, source: Path, reason: str) -> None:
    """Put a batch back from the data to where it came from."""
    if place.exists():
        target = source
        while target.exists():  # the sender has begun another batch of that name
            target = target.with_name(f"{target.name}.again")
        move(place, target)
    ledger.undo(batch, reason)


def track(paths: Paths, ledger: Ledger) -> list[str]:
    """Have DVC track the data sets whose batches moved; return their names.

    Raises AffectGapError if DVC could not; the next call does it again.
    """
    names = []
    for dataset, batches in ledger.untracked().groupby("dataset"):
        if existing_dataset_files(paths, str(dataset)):  # else the whole data set was removed
            add_to_dvc(paths, str(dataset))
            names.append(str(dataset))
        ledger.mark_tracked(batches["batch"].tolist())
    return names


def existing_dataset_files(paths: Paths, dataset: str) -> list[str]:
    """Return the paths of a data set's folder and of its `.dvc` file, if they exist."""
    known = [paths.raw / dataset, paths.raw / f"{dataset}.dvc"]
    return [path.relative_to(paths.root).as_posix() for path in known if path.exists()]


def _repair(paths: Paths, ledger: Ledger, step: Event) -> Repair:
    if step.kind == "withdrawing":
        return _repair_withdrawal(paths, ledger, step)
    detail = step.detail
    batch, place = str(step.batch), paths.at(detail["place"])
    source = paths.inbox / detail["source"]
    entry = inbox_entry(source)
    unchanged = entry is not None and stamp_of(entry) == detail["stamp"]
    if detail["target"] == "accepted":
        if place.exists() and digest_of(place, cache_of(paths)) == detail["digest"]:
            note = _remove_unless_changed(entry, detail["digest"]) if entry and unchanged else ""
            ledger.decide(batch, "accepted")
            moved = "was moved into data/raw when intake was killed"
            return Repair(batch, moved, f"now it is accepted{note}")
    elif unchanged or place.exists() or staging_folder(place).exists():
        finish(paths, ledger, step, entry.sources if entry and unchanged else [])
        return Repair(batch, "intake was killed while it was quarantined", "now it is there")
    undo(ledger, batch, place, source, "intake was killed")
    return Repair(batch, "intake was killed before it was moved", "it is checked again")


def _remove_unless_changed(entry: InboxEntry, digest: str) -> str:
    """Remove copied files; if the sender changed them since, leave them without the mark."""
    try:
        same = entry.kind != "folder" or digest_of(entry.path) == digest
    except BatchRejectedError:
        same = False
    if same:
        remove_sources(entry.sources)
        return ""
    entry.mark.unlink()
    return (
        f"; data/inbox/{printable_path(entry.path.name)} has changed since and is left, "
        "without its mark"
    )


def read_options(paths: Paths, params: Params, dataset: str, adapter: str) -> ReadOptions:
    """Return how to read the files of a data set; `params` is the section `ingest`."""
    bands, pixels, workers = params.age_bands, params.max_pixels, params.workers
    return ReadOptions(dataset, adapter, bands, pixels, workers, paths.at(SCAN_CACHE))


def cache_of(paths: Paths) -> list[Path]:
    """Return where links in data/raw may lead: DVC's cache, with `cache.type symlink`."""
    return [paths.at(".dvc/cache")]


def _repair_withdrawal(paths: Paths, ledger: Ledger, step: Event) -> Repair:
    batch, killed = str(step.batch), "its withdrawal was killed"
    source, place = paths.at(ledger.places()[batch]), paths.at(step.detail["place"])
    if source.parent == paths.raw:  # a data set removed by hand: only the reasons are written
        finish(paths, ledger, step, [])
        return Repair(batch, killed, "now it is recorded")
    present = source.exists() or place.exists() or staging_folder(place).exists()
    finish(paths, ledger, step, [source] if source.exists() else [])
    if not present:
        remedy = "look for it by hand"
        return Repair(batch, f"{killed}, and its folder is missing", remedy, done=False)
    return Repair(batch, killed, "now it is in quarantine")


def _facts(step: Event) -> list[str]:
    """Return what REASON.md states about a batch before the reasons."""
    detail = step.detail
    if step.kind == "withdrawing":
        return [f"was part of the data and withdrawn, {step.at}"]
    facts = [f"given as data/inbox/{detail['source']}", f"looked at {step.at}"]
    if detail["dataset"]:
        facts.append(f"for the data set {detail['dataset']}")
    if detail["n_files"]:
        facts.append(f"{detail['n_files']} files, {detail['n_pictures']} of them usable pictures")
    return facts
