"""Intake: a folder that somebody gave becomes `data/raw/<dataset>/`, wholly or not at all.

Files are copied as they are (hidden ones too: `ingest` leaves those out and says so) into a folder
beside the target, which one rename then makes the data set. What a killed intake left is removed
by the next one. FER2013, which is given out as a table of pixels, becomes pictures on the way.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tasks.core.errors import DataError
from tasks.core.files import sha256_of
from tasks.core.images import BadImageError, read_picture
from tasks.core.labels import ALL, DRAWN_DATASET
from tasks.core.paths import Paths
from tasks.core.progress import track
from tasks.core.text import is_missing
from tasks.ingest.catalogue import DATASETS
from tasks.ingest.fer2013_csv import TABLE_NAMES, picture_name, write_pictures
from tasks.ingest.label import DATASET_NAME, base_name, shown
from tasks.ingest.labels_csv import find_table, read_labels, require_no_similar
from tasks.ingest.listing import list_files
from tasks.ingest.sources import READY

INCOMING = ".incoming-"
_REFUSED = frozenset(["outside_link", "linked_folder", "broken_link", "not_a_file", "unreadable"])


@dataclass(frozen=True)
class IntakeSummary:
    """What an intake did.

    Attributes
    ----------
    folder
        The data set's folder below data/raw.
    files
        Number of files that it holds.
    size_bytes
        Their length in all.
    already_there
        True where the same files lay there before and nothing was done.
    """

    folder: Path
    files: int
    size_bytes: int
    already_there: bool

    def __str__(self) -> str:
        what = f"{self.files} files, {self.size_bytes / 1e6:.1f} MB"
        if self.already_there:
            return f"{self.folder}: the same {what} are there already; nothing was done"
        return f"{self.folder}: {what}"


def intake(source: Path, dataset: str, paths: Paths, max_pixels: int) -> IntakeSummary:
    """Check a folder of pictures and copy it to `data/raw/<dataset>/`, all or nothing.

    Parameters
    ----------
    source
        The folder that was given, or FER2013's table of pixels; it is not changed.
    dataset
        The name of the data set: a-z, 0-9, `_` and `-`.
    paths
        The project's folders.
    max_pixels
        As in `images.decode`; at least one file must be a picture within it.

    Raises
    ------
    DataError
        One line: a bad name, no such folder, a link or pipe in it, no picture in it, a labels.csv
        that cannot be read, no room on the disk, or other files under that name already.
    """
    _check_name(dataset)
    try:
        remove_leftovers(paths)
        return _intake(source, paths.raw / dataset, max_pixels)
    except OSError as error:
        where = shown(error.filename or paths.raw)
        raise DataError(f"{where}: {error.strerror or error}; nothing was taken in") from None


def _intake(source: Path, target: Path, max_pixels: int) -> IntakeSummary:
    table = source if source.is_file() and source.name in TABLE_NAMES else None
    files = [] if table else _list_source(source, target)
    table = table or _table_of_pixels(source, files)
    if table:
        return _intake_table(table, [file for file in files if source / file != table], target)
    size_bytes = sum((source / file).stat().st_size for file in files)
    if target.is_dir() and any(target.iterdir()):
        _require_same(source, files, target)
        return IntakeSummary(target, len(files), size_bytes, already_there=True)
    _require_picture(source, files, max_pixels)
    if target.name not in DATASETS:  # other sets have tables of their own
        _check_labels(source, files)
    _require_room(target.parent, size_bytes)
    with _incoming(target) as folder:
        for file in track(files, len(files), "intake"):
            _copy(source / file, folder / file)
        _move_into_place(folder, target)
    return IntakeSummary(target, len(files), size_bytes, already_there=False)


def _check_labels(source: Path, files: Sequence[str]) -> None:
    """Raise DataError for labels that cannot be used or would be ignored; nothing is copied then.

    The tables of batches, which lie in folders with a mark, are for the adapter to read.
    """
    batches = {file.removesuffix(READY) for file in files if file.endswith(f"/{READY}")}
    own = [file for file in files if f"{file.split('/', 1)[0]}/" not in batches]
    require_no_similar(source, own)
    if table := find_table(own):
        read_labels(source / table)


def _table_of_pixels(source: Path, files: Sequence[str]) -> Path | None:
    """Find FER2013's table in a folder that does not hold its pictures already."""
    names = [file for file in TABLE_NAMES if file in files]
    if not names or any(base_name(file) == picture_name(0) for file in files):
        return None
    return source / names[0]


def _intake_table(table: Path, others: Sequence[str], target: Path) -> IntakeSummary:
    """Make FER2013's pictures, and copy what lies beside its table (such as the FER+ labels)."""
    _require_room(target.parent, table.stat().st_size)  # a pixel takes up to four characters
    with _incoming(target) as folder:
        write_pictures(table, folder)
        for file in others:
            _copy(table.parent / file, folder / file)
        listing = list_files(folder)
        files = sorted([*listing.files, *listing.faults])
        size_bytes = sum((folder / file).stat().st_size for file in files)
        there = target.is_dir() and any(target.iterdir())
        if there:
            _require_same(folder, files, target)
        else:
            _move_into_place(folder, target)
    return IntakeSummary(target, len(files), size_bytes, already_there=there)


def remove_leftovers(paths: Paths) -> list[Path]:
    """Remove the folders of intakes that were killed; return what was removed."""
    leftovers = []
    for folder in sorted(paths.raw.glob(f"{INCOMING}*")):
        process = folder.name.rsplit("-", 1)[-1]
        if process.isdecimal() and not psutil.pid_exists(int(process)):
            leftovers.append(folder)
    for folder in leftovers:
        shutil.rmtree(folder)
    return leftovers


def require_within_project(paths: Paths) -> None:
    """Check that no link leads out of the project from data/raw or from a data set in it.

    DVC tracks nothing beyond such a link, and what is copied through it would lie elsewhere,
    unknown to the ledger.

    Raises
    ------
    DataError
        One line with the folder, where it leads, and what to do.
    """
    root = paths.root.resolve()
    entries = sorted(paths.raw.iterdir()) if paths.raw.is_dir() else []
    for folder in (paths.raw, *(entry for entry in entries if entry.is_symlink())):
        if not folder.resolve().is_relative_to(root):
            raise DataError(
                f"{folder}: leads out of the project, to {shown(folder.resolve())}, where DVC "
                "tracks nothing; put a folder in its place (for another disk mount it here, or "
                "set DVC's cache.dir)"
            )


def _check_name(dataset: str) -> None:
    if not DATASET_NAME.fullmatch(dataset):
        raise DataError(
            f"--dataset '{dataset}': use a-z, 0-9, _ and -, beginning with one of a-z0-9"
        )
    if dataset in (DRAWN_DATASET, ALL):
        raise DataError(f"--dataset '{dataset}': this name is the project's own; choose another")
    if is_missing(dataset):
        raise DataError(
            f"--dataset '{dataset}': this word stands for a missing value; choose another"
        )


def _list_source(source: Path, target: Path) -> list[str]:
    if not source.is_dir():
        kind = "is no folder" if source.exists() else "no such folder"
        raise DataError(f"{shown(source)}: {kind}; give the folder that holds the pictures")
    inner, outer = target.resolve(), source.resolve()
    if inner != outer and inner.is_relative_to(outer):
        raise DataError(f"{shown(source)}: data/raw lies inside it; give a folder of its own")
    listing = list_files(source)
    for path, fault in listing.faults.items():
        # Names that begin with a dot are copied, but not when they are links or pipes.
        entry = source / path
        if fault.reason in _REFUSED or entry.is_symlink() or not entry.is_file():
            raise DataError(f"{shown(entry)}: {fault.detail}; intake copies plain files only")
    links = [path for path in listing.files if (source / path).is_symlink()]
    if links:
        raise DataError(f"{source / links[0]}: is a link; put the file itself there")
    files = sorted([*listing.files, *listing.faults])
    if not files:
        raise DataError(f"{shown(source)}: is empty; give the folder that holds the pictures")
    return files


def _require_same(source: Path, files: Sequence[str], target: Path) -> None:
    listing = list_files(target)
    there = {*listing.files, *listing.faults}
    only_here, only_there = set(files) - there, there - set(files)
    changed = [
        file
        for file in files
        if file in there and sha256_of(source / file) != sha256_of(target / file)
    ]
    if only_here or only_there or changed:
        raise DataError(
            f"{target}: holds a data set already, and not this one ({len(only_here)} files are "
            f"only in {shown(source)}, {len(only_there)} only there, {len(changed)} differ); "
            "choose another name, or remove it first (the folder and the .dvc file beside it)"
        )


def _require_picture(source: Path, files: Sequence[str], max_pixels: int) -> None:
    reasons: list[str] = []
    for file in files:
        try:
            read_picture(source / file, max_pixels)
        except BadImageError as error:
            reasons.append(error.reason)
        else:
            return
    listed = ", ".join(f"{reasons.count(reason)} {reason}" for reason in sorted(set(reasons)))
    raise DataError(f"{shown(source)}: none of its {len(files)} files is a picture ({listed})")


def _require_room(raw: Path, size_bytes: int) -> None:
    raw.mkdir(parents=True, exist_ok=True)
    free_bytes = shutil.disk_usage(raw).free
    if free_bytes < size_bytes:
        raise DataError(f"{raw}: {size_bytes} bytes are needed, {free_bytes} are free")


@contextmanager
def _incoming(target: Path) -> Iterator[Path]:
    folder = target.with_name(f"{INCOMING}{target.name}-{os.getpid()}")
    shutil.rmtree(folder, ignore_errors=True)  # of a process that had this number before
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # renamed away when all went well


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as given, target.open("xb") as copy:
        shutil.copyfileobj(given, copy)


def _move_into_place(folder: Path, target: Path) -> None:
    os.sync()  # once for all: an fsync a file costs 5 ms each, 20 times the copying of small ones
    try:
        os.rename(folder, target)  # onto nothing or an empty folder, else it fails
    except OSError:
        raise DataError(f"{target}: something is there meanwhile; nothing was changed") from None
    handle = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
