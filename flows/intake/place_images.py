"""Atomic import of a folder of images as `data/raw/<dataset>/`.

Files are copied unchanged into a folder beside the target, which is then renamed. Hidden files are
copied, too: `ingest` leaves them out and reports them. The next intake removes what a killed one
left. FER2013, which is distributed as a table of pixels, is converted to images.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from flows.datasets.catalog import DATASETS
from tasks.core.errors import DataError
from tasks.core.files import sha256_of
from tasks.core.imaging.decode import BadImageError, read_image
from tasks.core.labels import ALL, DRAWN_DATASET
from tasks.core.parallel.progress import track
from tasks.core.paths import Paths
from tasks.core.text import is_missing
from tasks.ingest.dataset_reader import READY, is_empty
from tasks.ingest.label import DATASET_NAME, base_name, printable_path
from tasks.ingest.labels_csv import find_table, read_labels, require_no_similar
from tasks.ingest.list_files import list_files
from tasks.ingest.spreadsheet import TABLE_NAMES, image_name, write_images

INCOMING = ".incoming-"
_REJECTED = frozenset(["outside_link", "linked_folder", "broken_link", "not_a_file", "unreadable"])


@dataclass(frozen=True)
class IntakeSummary:
    """Result of an intake; `already_there`: the folder had the same files, nothing was done."""

    folder: Path
    files: int
    size_bytes: int
    already_there: bool

    def __str__(self) -> str:
        files = f"{self.files} files, {self.size_bytes / 1e6:.1f} MB"
        if self.already_there:
            return f"{self.folder}: the same {files} are there already; nothing was done"
        return f"{self.folder}: {files}"


def intake(source: Path, dataset: str, paths: Paths, max_pixels: int) -> IntakeSummary:
    """Check a folder of images and copy it to `data/raw/<dataset>/`, all or nothing.

    Parameters
    ----------
    source
        A folder, or FER2013's table of pixels.
    max_pixels
        As in `images.decode`; at least one file must be an image within it.

    Raises
    ------
    DataError
        For an invalid name, a missing folder, a link or pipe in it, no image in it, an invalid
        labels.csv, lack of disk space, or a different data set of the same name.
    """
    _check_name(dataset)
    try:
        remove_leftovers(paths)
        return _intake(source, paths.raw / dataset, max_pixels)
    except OSError as error:
        path = printable_path(error.filename or paths.raw)
        raise DataError(f"{path}: {error.strerror or error}; nothing was imported") from None


def _intake(source: Path, target: Path, max_pixels: int) -> IntakeSummary:
    table = source if source.is_file() and source.name in TABLE_NAMES else None
    files = [] if table else _list_source(source, target)
    table = table or _table_of_pixels(source, files)
    if table:
        return _intake_table(table, [file for file in files if source / file != table], target)
    size_bytes = sum((source / file).stat().st_size for file in files)
    if not is_empty(target):
        _require_same(source, files, target)
        return IntakeSummary(target, len(files), size_bytes, already_there=True)
    _require_image(source, files, max_pixels)
    if target.name not in DATASETS:  # the supported sets have their own tables
        _check_labels(source, files)
    _require_space(target.parent, size_bytes)
    with incoming(target) as folder:
        for file in track(files, len(files), "intake"):
            _copy(source / file, folder / file)
        _move_into_place(folder, target)
    return IntakeSummary(target, len(files), size_bytes, already_there=False)


def _check_labels(source: Path, files: Sequence[str]) -> None:
    """Raise DataError for labels that are invalid or would be ignored, except those of batches."""
    batches = {file.removesuffix(READY) for file in files if file.endswith(f"/{READY}")}
    outside = [file for file in files if f"{file.split('/', 1)[0]}/" not in batches]
    require_no_similar(source, outside)
    if table := find_table(outside):
        read_labels(source / table)


def _table_of_pixels(source: Path, files: Sequence[str]) -> Path | None:
    """Return FER2013's table in a folder that does not contain the images already."""
    names = [file for file in TABLE_NAMES if file in files]
    if not names or any(base_name(file) == image_name(0) for file in files):
        return None
    return source / names[0]


def _intake_table(table: Path, others: Sequence[str], target: Path) -> IntakeSummary:
    """Convert FER2013's table to images, and copy other files such as the FER+ labels."""
    _require_space(target.parent, table.stat().st_size)  # a pixel takes up to four characters
    with incoming(target) as folder:
        write_images(table, folder)
        for file in others:
            _copy(table.parent / file, folder / file)
        listing = list_files(folder)
        files = sorted([*listing.files, *listing.faults])
        size_bytes = sum((folder / file).stat().st_size for file in files)
        exists = not is_empty(target)
        if exists:
            _require_same(folder, files, target)
        else:
            _move_into_place(folder, target)
    return IntakeSummary(target, len(files), size_bytes, already_there=exists)


def remove_leftovers(paths: Paths) -> list[Path]:
    """Remove the temporary folders of killed intakes; return the removed folders."""
    leftovers = []
    for folder in sorted(paths.raw.glob(f"{INCOMING}*")):
        process = folder.name.rsplit("-", 1)[-1]
        if process.isdecimal() and not psutil.pid_exists(int(process)):
            leftovers.append(folder)
    for folder in leftovers:
        shutil.rmtree(folder)
    return leftovers


def require_within_project(paths: Paths) -> None:
    """Raise DataError if data/raw or a data set in it is a link out of the project.

    DVC tracks nothing beyond such a link, and the ledger would not know files copied through it.
    """
    root = paths.root.resolve()
    entries = sorted(paths.raw.iterdir()) if paths.raw.is_dir() else []
    for folder in (paths.raw, *(entry for entry in entries if entry.is_symlink())):
        if not folder.resolve().is_relative_to(root):
            raise DataError(
                f"{folder}: leads out of the project, to {printable_path(folder.resolve())}, "
                "where DVC "
                "tracks nothing; put a folder in its place (for another disk mount it here, or "
                "set DVC's cache.dir)"
            )


def _check_name(dataset: str) -> None:
    if not DATASET_NAME.fullmatch(dataset):
        raise DataError(
            f"--dataset '{dataset}': use a-z, 0-9, _ and -, beginning with one of a-z0-9"
        )
    if dataset in (DRAWN_DATASET, ALL):
        raise DataError(f"--dataset '{dataset}': this name is reserved; choose another")
    if is_missing(dataset):
        raise DataError(
            f"--dataset '{dataset}': this word stands for a missing value; choose another"
        )


def _list_source(source: Path, target: Path) -> list[str]:
    if not source.is_dir():
        reason = "is not a folder" if source.exists() else "no such folder"
        raise DataError(
            f"{printable_path(source)}: {reason}; give the folder that holds the pictures"
        )
    inner, outer = target.resolve(), source.resolve()
    if inner != outer and inner.is_relative_to(outer):
        raise DataError(
            f"{printable_path(source)}: contains data/raw; give a folder outside the project"
        )
    listing = list_files(source)
    for path, fault in listing.faults.items():
        # Hidden files are copied, but not links or pipes.
        entry = source / path
        if fault.reason in _REJECTED or entry.is_symlink() or not entry.is_file():
            raise DataError(
                f"{printable_path(entry)}: {fault.detail}; intake copies plain files only"
            )
    links = [path for path in listing.files if (source / path).is_symlink()]
    if links:
        raise DataError(f"{source / links[0]}: is a link; replace it with the file itself")
    files = sorted([*listing.files, *listing.faults])
    if not files:
        raise DataError(
            f"{printable_path(source)}: is empty; give the folder that holds the pictures"
        )
    return files


def _require_same(source: Path, files: Sequence[str], target: Path) -> None:
    listing = list_files(target)
    existing = {*listing.files, *listing.faults}
    new, gone = set(files) - existing, existing - set(files)
    changed = [
        file
        for file in files
        if file in existing and sha256_of(source / file) != sha256_of(target / file)
    ]
    if new or gone or changed:
        raise DataError(
            f"{target}: holds a data set already, but a different one ({len(new)} files are "
            f"only in {printable_path(source)}, {len(gone)} only there, {len(changed)} differ); "
            "choose another name, or remove it first (the folder and the .dvc file beside it)"
        )


def _require_image(source: Path, files: Sequence[str], max_pixels: int) -> None:
    reasons: list[str] = []
    for file in files:
        try:
            read_image(source / file, max_pixels)
        except BadImageError as error:
            reasons.append(error.reason)
        else:
            return
    listed = ", ".join(f"{reasons.count(reason)} {reason}" for reason in sorted(set(reasons)))
    raise DataError(
        f"{printable_path(source)}: none of its {len(files)} files is a picture ({listed})"
    )


def _require_space(raw: Path, size_bytes: int) -> None:
    raw.mkdir(parents=True, exist_ok=True)
    free_bytes = shutil.disk_usage(raw).free
    if free_bytes < size_bytes:
        raise DataError(f"{raw}: {size_bytes} bytes are needed, {free_bytes} are free")


@contextmanager
def incoming(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside the target, which is removed at the end unless renamed."""
    folder = target.with_name(f"{INCOMING}{target.name}-{os.getpid()}")
    shutil.rmtree(folder, ignore_errors=True)  # of a former process with the same ID
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as original, target.open("xb") as copy:
        shutil.copyfileobj(original, copy)


def _move_into_place(folder: Path, target: Path) -> None:
    os.sync()  # an fsync per file would take 5 ms, 20 times the copying of a small file
    try:
        os.rename(folder, target)  # fails unless the target is absent or an empty folder
    except OSError:
        raise DataError(f"{target}: was created meanwhile; nothing was changed") from None
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Write a folder's entries to the disk, so that renames survive a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
