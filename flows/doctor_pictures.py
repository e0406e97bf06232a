"""The doctor's look at the pictures: what lies in data/raw against what the ledger says came in.

Every accepted picture is read, and its sha256 compared with the one that was written down when its
batch was verified. Nothing is moved, removed or brought back here: each finding says how.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import pandas as pd

from flows.bring_back import INTO_THE_INBOX, BringBack
from flows.finding import Finding
from tasks.core.files import sha256_of
from tasks.core.ledger import Ledger
from tasks.core.paths import Paths
from tasks.core.progress import track
from tasks.ingest.inbox.reading import digest_from
from tasks.ingest.label import shown
from tasks.ingest.listing import is_of_system, list_files
from tasks.ingest.sources import READY

_SHOWN = 3  # files that a finding names
_MOST_LINES = 2_000_000  # hashed to tell which files came later than their batch: some seconds


@dataclass(eq=False)
class _Accepted:
    """An accepted batch, or a whole data set, and how the disk differs from it.

    Names are paths below `place`. `known` has the sha256 of each picture that came in; `n_files`
    counts the other files (tables, broken pictures) as well, and `digest` is of all of them.
    `others` are the files on disk that are none of its pictures.
    """

    batch: str
    dataset: str
    place: Path
    known: dict[str, str]
    n_files: int
    digest: str
    others: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def ledger_against_disk(paths: Paths) -> Iterator[Finding]:
    """Compare what the ledger says of every accepted batch with what lies in data/raw.

    What was quarantined or withdrawn needs no folder: a person may have moved or removed it.
    """
    ledger = Ledger(paths.ledger)
    accepted = _accepted(paths, ledger)
    unknown = _unknown(paths, ledger)
    bring_back = BringBack(paths)
    there = [one for one in accepted if one.place.is_dir()]
    _look(there, {*(one.place for one in accepted), *unknown})
    for one in accepted:
        if one in there:
            yield from _differences(one, bring_back)
        else:
            remedy = bring_back.how(one.batch, one.dataset, one.place, [])
            yield Finding("accepted, and its folder is not there", str(one.place), remedy, False)
    yield from unknown.values()


def _accepted(paths: Paths, ledger: Ledger) -> list[_Accepted]:
    batches, places = ledger.batches(), ledger.places()
    pictures = dict(iter(ledger.pictures().groupby("batch")))
    found = []
    for row in batches[batches["state"] == "accepted"].itertuples():
        place = paths.at(places[row.batch])
        below = f"{place.relative_to(paths.raw).as_posix()}/"
        own = pictures[row.batch][["path", "sha256"]] if row.batch in pictures else pd.DataFrame()
        known = {path.removeprefix(below): sha for path, sha in own.itertuples(index=False)}
        found.append(_Accepted(row.batch, row.dataset, place, known, row.n_files, row.digest))
    return found


def _look(accepted: Sequence[_Accepted], apart: set[Path]) -> None:
    """Read every accepted picture, and list the other files, without those of folders `apart`."""
    for one in accepted:
        one.others = [name for name in _names(one.place, apart) if name not in one.known]
    pictures = [(one, name) for one in accepted for name in one.known]
    for one, name in track(pictures, len(pictures), "doctor"):
        path = one.place / name
        try:
            if not path.is_file():
                one.missing.append(name)
            elif sha256_of(path) != one.known[name]:
                one.changed.append(name)
        except OSError as error:
            one.unreadable.append(f"{name}: {error.strerror or error}")


def _names(place: Path, apart: set[Path]) -> list[str]:
    """List a batch's files, hidden ones too, but for its mark and for folders `apart` in it."""
    listing = list_files(place)
    inner = tuple(f"{path.name}/" for path in apart if path.parent == place)
    names = sorted([*listing.files, *listing.faults])
    return [name for name in names if name != READY and not name.startswith(inner)]


def _differences(one: _Accepted, bring_back: BringBack) -> Iterator[Finding]:
    for lost, told in ((one.missing, "are not there"), (one.changed, "are not what was accepted")):
        if lost:
            remedy = bring_back.how(one.batch, one.dataset, one.place, lost)
            yield _finding(one, f"{_of(one, lost)} {told} ({_some(lost)})", remedy)
    if one.unreadable:
        told = f"{_of(one, one.unreadable)} cannot be read ({_some(one.unreadable)})"
        yield _finding(one, told, "mend their permissions, or look at the disk")
    if told := _additional(one):
        yield _finding(one, told, f"move them {INTO_THE_INBOX}, or away")


def _additional(one: _Accepted) -> str:
    """Say which files came later than their batch; "" for none.

    The ledger has the number of a batch's other files and not their names; but the digest of all
    files tells which of those on disk were among them.
    """
    surplus = len(one.others) - (one.n_files - len(one.known))
    if surplus <= 0:
        return ""
    told = f"{surplus} more files than were accepted"
    content = {name: _sha256_or_nothing(one.place / name) for name in one.others}
    lines = math.comb(len(content), surplus) * (len(content) + len(one.known))
    for late in combinations(content, surplus) if lines <= _MOST_LINES else ():
        early = {name: sha256 for name, sha256 in content.items() if name not in late}
        if digest_from(one.known | early) == one.digest:
            return f"{told} ({_some(late)})"
    return f"{told}, among {len(content)} that are none of its pictures ({_some(one.others)})"


def _unknown(paths: Paths, ledger: Ledger) -> dict[Path, Finding]:
    """Find what lies in data/raw and is in no row of the ledger; the drawn cohort is in none."""
    batches, whole = ledger.batches(), ledger.whole()
    known = {paths.at(place) for place in ledger.places().values()}
    taken = set(batches.loc[~batches["batch"].isin(whole), "dataset"])  # sets that took batches in
    found: dict[Path, Finding] = {}
    for folder in sorted(path for path in paths.raw.glob("*/") if path != paths.drawn):
        marked = sorted(mark.parent for mark in folder.glob(f"*/{READY}"))
        entries = [folder]
        if folder in known:  # a whole data set: only what is a batch within it is not its own
            entries = marked
        elif folder.name in taken or marked:
            entries = sorted(folder.iterdir())
        entries = [one for one in entries if one not in known and not _is_ignored(one.name)]
        for entry in entries:
            if entry.is_dir() and any(path.is_file() for path in entry.rglob("*")):
                found[entry] = _stranger(paths, batches, entry)
        if loose := [entry.name for entry in entries if not entry.is_dir()]:
            told = f"{len(loose)} files are in no batch ({_some(loose)})"
            remedy = f"move them {INTO_THE_INBOX}, or away"
            found[folder] = Finding(told, str(folder), remedy, mended=False)
    return found


def _is_ignored(name: str) -> bool:
    return name.startswith(".") or is_of_system(name)


def _stranger(paths: Paths, batches: pd.DataFrame, folder: Path) -> Finding:
    """Say what a folder is that the ledger has not in this place: a batch, or a data set."""
    of_set = folder.parent == paths.raw
    what = "data set" if of_set else "batch"
    below = f"data/raw/{folder.name}"
    again = f"`affectgap intake {below} --dataset {folder.name}` takes it in as it lies there"
    if not of_set:
        again = f"move it into data/inbox, with `{READY}` written last, so that it is taken in"
    gone = batches[(batches["state"] == "withdrawn") & (batches["batch"] == folder.name)]
    if (gone["dataset"] == (folder.name if of_set else folder.parent.name)).any():
        told, remedy = f"this {what} was withdrawn, and is here again", f"remove it, or {again}"
    else:
        told = f"the ledger does not know this {what}"
        remedy = f"{again}, or bring back data/ledger.db from a copy"
    return Finding(told, str(folder), remedy, mended=False)


def _finding(one: _Accepted, told: str, remedy: str) -> Finding:
    return Finding(told, f"batch {one.batch}", remedy, mended=False)


def _of(one: _Accepted, lost: Sequence[str]) -> str:
    return f"{len(lost)} of {len(one.known)} pictures"


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(shown, names[:_SHOWN])) + (" …" if len(names) > _SHOWN else "")


def _sha256_or_nothing(path: Path) -> str:
    """Return the sha256 of a file; "" for a pipe, a link to nowhere or what cannot be read."""
    try:
        return sha256_of(path) if path.is_file() else ""
    except OSError:
        return ""
