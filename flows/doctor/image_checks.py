"""Checks of the doctor on images: compares data/raw with the ledger.

Every accepted image is read, and its sha256 compared with the one recorded when its batch was
verified. Nothing is moved, removed or restored here: each finding names the remedy.

For lost images the remedy is the safe command that restores them from DVC's cache. `dvc checkout`
of a folder removes the whole folder before it fails if the cache lacks a single file. DVC is
therefore asked first, and the command names the smallest part that is enough.
"""

import math
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import pandas as pd

from flows.doctor.state_checks import Finding
from flows.intake.validate_batch import digest_from
from flows.ledger.ledger import Ledger
from flows.pipeline.dvc_graph import data_status
from tasks.core.errors import AffectGapError
from tasks.core.files import sha256_of
from tasks.core.parallel.progress import track
from tasks.core.paths import Paths
from tasks.ingest.dataset_reader import READY
from tasks.ingest.label import printable_path
from tasks.ingest.list_files import is_system_file, list_files

INTO_THE_INBOX = "into a folder of data/inbox with `labels.csv` and, last, `_READY`"
_NAMED = 3  # files that a command lists one by one
_KINDS = ("deleted", "modified", "added")  # DVC's words for differences
_MAX_LISTED = 3  # files that a finding lists
_MAX_HASHED_LINES = 2_000_000  # hashed to find files that came later than their batch: some seconds


class RestoreHints:
    """Restore commands for lost images; DVC is asked once, and only if images are lost."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._differs: dict[str, set[str]] = {}  # by kind; paths below the project's folder
        self._not_in_cache: set[str] = set()  # folders end with a slash

    def how(self, batch: str, dataset: str, place: Path, lost: Sequence[str]) -> str:
        """Return how to restore lost images of a batch, whose folder is `place`.

        `lost` are paths below it of missing or changed files; empty if the folder itself is
        missing.
        """
        try:
            self._query()
        except AffectGapError:
            return "restore them from a backup; DVC, which may have them, cannot be asked now"
        folder, file = place.relative_to(self._paths.root).as_posix(), f"data/raw/{dataset}.dvc"
        names = [f"{folder}/{name}" for name in lost]
        if self._would_fail(names, f"data/raw/{dataset}/"):
            return (
                f"DVC's cache lacks files: `dvc fetch {file}`, or restore them from a backup; no "
                "`dvc checkout` before, which would remove what is there"
            )
        tracked = self._differs["deleted"] | self._differs["modified"]
        if not (tracked.issuperset(names) if names else _below(folder, tracked)):
            return (
                f"{file} as it is now does not have them: restore an earlier one from git, or "
                f"the pictures from a backup; `affectgap withdraw {batch} --why …` where they are "
                "gone for good"
            )
        return self._checkout(names, folder)

    def _query(self) -> None:
        if not self._differs:
            status = data_status(self._paths.root, granular=True)
            found = status.get("uncommitted", {})
            self._differs = {kind: set(found.get(kind, [])) for kind in _KINDS}
            self._not_in_cache = set(status.get("not_in_cache", []))

    def _would_fail(self, names: Sequence[str], data_set: str) -> bool:
        """Return whether a checkout of these files, or of a part of the data set, would fail."""
        if _are_few(names) and data_set not in self._not_in_cache:
            return not self._not_in_cache.isdisjoint(names)
        return any(name.startswith(data_set) for name in self._not_in_cache)

    def _checkout(self, names: Sequence[str], folder: str) -> str:
        """Return the checkout of the files if they are few, else of their folder."""
        changed, added = self._differs["modified"], self._differs["added"]
        if _are_few(names):
            replaced, also = not changed.isdisjoint(names), ""
        else:
            names, replaced = [folder], _below(folder, changed | added)
            also = ", and removes what else was changed or added: copy away what is to stay"
        if not replaced:
            return f"`dvc checkout {shlex.join(names)}` restores them"
        return f"`dvc checkout --force {shlex.join(names)}` restores what was accepted{also}"


def _are_few(names: Sequence[str]) -> bool:
    return 0 < len(names) <= _NAMED


def _below(folder: str, names: Iterable[str]) -> bool:
    """Return whether `names` holds files of a folder, not only the folder itself."""
    return any(name.startswith(f"{folder}/") and not name.endswith("/") for name in names)


@dataclass(eq=False)
class _Accepted:
    """An accepted batch or whole data set, and how the disk differs from it.

    Names are paths below `place`. `known` maps each imported image to its sha256. `n_files` also
    counts the other files (tables, broken images), and `digest` covers all of them. `others` are
    the files on disk that are none of its images.
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
    """Compare every accepted batch of the ledger with data/raw.

    Quarantined and withdrawn batches need no folder: a person may have moved or removed it.
    """
    ledger = Ledger(paths.ledger)
    accepted = _accepted(paths, ledger)
    unknown = _unknown(paths, ledger)
    bring_back = RestoreHints(paths)
    present = [batch for batch in accepted if batch.place.is_dir()]
    _compare_with_disk(present, {*(batch.place for batch in accepted), *unknown})
    for batch in accepted:
        if batch in present:
            yield from _differences(batch, bring_back)
        else:
            remedy = bring_back.how(batch.batch, batch.dataset, batch.place, [])
            yield Finding("accepted, and its folder is not there", str(batch.place), remedy, False)
    yield from unknown.values()


def _accepted(paths: Paths, ledger: Ledger) -> list[_Accepted]:
    batches, places = ledger.batches(), ledger.places()
    images = ledger.images()
    by_batch, no_images = dict(iter(images.groupby("batch"))), images.iloc[:0]
    accepted = []
    for row in batches[batches["state"] == "accepted"].itertuples():
        place = paths.at(places[row.batch])
        below = f"{place.relative_to(paths.raw).as_posix()}/"
        images = by_batch.get(row.batch, no_images)[["path", "sha256"]]
        known = {
            path.removeprefix(below): sha256 for path, sha256 in images.itertuples(index=False)
        }
        accepted.append(_Accepted(row.batch, row.dataset, place, known, row.n_files, row.digest))
    return accepted


def _compare_with_disk(accepted: Sequence[_Accepted], excluded: set[Path]) -> None:
    """Read every accepted image and list the other files, except `excluded` folders."""
    for batch in accepted:
        names = _names(batch.place, excluded)
        batch.others = [name for name in names if name not in batch.known]
    images = [(batch, name) for batch in accepted for name in batch.known]
    for batch, name in track(images, len(images), "doctor"):
        path = batch.place / name
        try:
            if not path.is_file():
                batch.missing.append(name)
            elif sha256_of(path) != batch.known[name]:
                batch.changed.append(name)
        except OSError as error:
            batch.unreadable.append(f"{name}: {error.strerror or error}")


def _names(place: Path, excluded: set[Path]) -> list[str]:
    """List a batch's files, hidden ones too, except its mark and `excluded` folders."""
    listing = list_files(place)
    inner = tuple(f"{path.name}/" for path in excluded if path.parent == place)
    names = sorted([*listing.files, *listing.faults])
    return [name for name in names if name != READY and not name.startswith(inner)]


def _differences(batch: _Accepted, bring_back: RestoreHints) -> Iterator[Finding]:
    faults = {"are not there": batch.missing, "are not what was accepted": batch.changed}
    for fault, lost in faults.items():
        if lost:
            remedy = bring_back.how(batch.batch, batch.dataset, batch.place, lost)
            yield _finding(batch, f"{_share_of(batch, lost)} {fault} ({_examples(lost)})", remedy)
    if batch.unreadable:
        lost = batch.unreadable
        fault = f"{_share_of(batch, lost)} cannot be read ({_examples(lost)})"
        yield _finding(batch, fault, "fix their permissions, or check the disk")
    if surplus := _additional(batch):
        yield _finding(batch, surplus, f"move them {INTO_THE_INBOX}, or away")


def _additional(batch: _Accepted) -> str:
    """Describe files that came later than their batch; "" if there are none.

    The ledger knows how many other files a batch had, but not their names. The digest of all files
    tells which of those on disk were among them.
    """
    surplus = len(batch.others) - (batch.n_files - len(batch.known))
    if surplus <= 0:
        return ""
    message = f"{surplus} more files than were accepted"
    content = {name: _sha256_or_empty(batch.place / name) for name in batch.others}
    lines = math.comb(len(content), surplus) * (len(content) + len(batch.known))
    for late in combinations(content, surplus) if lines <= _MAX_HASHED_LINES else ():
        early = {name: sha256 for name, sha256 in content.items() if name not in late}
        if digest_from(batch.known | early) == batch.digest:
            return f"{message} ({_examples(late)})"
    others = f"{len(content)} that are none of its pictures ({_examples(batch.others)})"
    return f"{message}, among {others}"


def _unknown(paths: Paths, ledger: Ledger) -> dict[Path, Finding]:
    """Find what lies in data/raw without a row in the ledger, except the drawn cohort."""
    batches, complete = ledger.batches(), ledger.whole()
    known = {paths.at(place) for place in ledger.places().values()}
    with_batches = set(batches.loc[~batches["batch"].isin(complete), "dataset"])
    findings: dict[Path, Finding] = {}
    for folder in sorted(path for path in paths.raw.glob("*/") if path != paths.drawn):
        marked = sorted(mark.parent for mark in folder.glob(f"*/{READY}"))
        entries = [folder]
        if folder in known:  # an imported data set: only batches inside it are unknown
            entries = marked
        elif folder.name in with_batches or marked:
            entries = sorted(folder.iterdir())
        entries = [entry for entry in entries if entry not in known and not _is_ignored(entry.name)]
        for entry in entries:
            if entry.is_dir() and any(path.is_file() for path in entry.rglob("*")):
                findings[entry] = _unknown_folder(paths, batches, entry)
        if loose := [entry.name for entry in entries if not entry.is_dir()]:
            message = f"{len(loose)} files are in no batch ({_examples(loose)})"
            remedy = f"move them {INTO_THE_INBOX}, or away"
            findings[folder] = Finding(message, str(folder), remedy, mended=False)
    return findings


def _is_ignored(name: str) -> bool:
    return name.startswith(".") or is_system_file(name)


def _unknown_folder(paths: Paths, batches: pd.DataFrame, folder: Path) -> Finding:
    """Describe a folder (batch or data set) that the ledger does not have at this place."""
    is_dataset = folder.parent == paths.raw
    what = "data set" if is_dataset else "batch"
    below = f"data/raw/{folder.name}"
    reimport = f"`affectgap intake {below} --dataset {folder.name}` imports it in place"
    if not is_dataset:
        reimport = f"move it into data/inbox, with `{READY}` written last, to import it"
    withdrawn = batches[(batches["state"] == "withdrawn") & (batches["batch"] == folder.name)]
    if (withdrawn["dataset"] == (folder.name if is_dataset else folder.parent.name)).any():
        message = f"this {what} was withdrawn, and is here again"
        remedy = f"remove it, or {reimport}"
    else:
        message = f"the ledger does not know this {what}"
        remedy = f"{reimport}, or restore data/ledger.db from a backup"
    return Finding(message, str(folder), remedy, mended=False)


def _finding(batch: _Accepted, message: str, remedy: str) -> Finding:
    return Finding(message, f"batch {batch.batch}", remedy, mended=False)


def _share_of(batch: _Accepted, lost: Sequence[str]) -> str:
    return f"{len(lost)} of {len(batch.known)} pictures"


def _examples(names: Sequence[str]) -> str:
    return ", ".join(map(printable_path, names[:_MAX_LISTED])) + (
        " …" if len(names) > _MAX_LISTED else ""
    )


def _sha256_or_empty(path: Path) -> str:
    """Return the sha256 of a file; "" for a pipe, a broken link or an unreadable file."""
    try:
        return sha256_of(path) if path.is_file() else ""
    except OSError:
        return ""
