"""Reading of a data set's folder with its adapter: entries to decode, and rejects.

A subfolder with a file `_READY` is a batch of the inbox. The adapter reads each batch separately,
with its own tables, and the column `batch` of its images holds the folder's name.
"""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tasks.core.errors import DataError
from tasks.core.labels import DRAWN_DATASET
from tasks.core.paths import Paths
from tasks.ingest.adapters import ADAPTERS
from tasks.ingest.label import Fault, Label, printable_path
from tasks.ingest.list_files import Listing, list_files

READY = "_READY"  # the sender of a batch writes this file last


class Entry(NamedTuple):
    """A file that may be an image, with its path below the data set's folder."""

    dataset: str
    path: str
    label: Label | Fault


class Reject(NamedTuple):
    """A row of the rejects; `image_id` is "" where the file was not read."""

    image_id: str
    path: str
    reason: str
    detail: str

    def order(self) -> tuple[str, str, str]:
        """Return the sort key of rejects."""
        return self.path, self.reason, self.detail


def reject(dataset: str, path: str, fault: Fault, image_id: str = "") -> Reject:
    """Return the reject of a file, with its path below data/raw as printable UTF-8."""
    return Reject(image_id, f"{dataset}/{printable_path(path)}", fault.reason, fault.detail)


class Source(NamedTuple):
    """Contents of a data set's folder.

    Attributes
    ----------
    entries
        Files that may be images, in the order of their paths.
    refused
        Unreadable entries, and missing files that a side file lists.
    notes
        One line for each part of a side file that was not understood.
    """

    entries: list[Entry]
    refused: list[Reject]
    notes: tuple[str, ...]


def require_folders(datasets: Iterable[str], paths: Paths) -> None:
    """Raise DataError that names every data set whose folder is missing or empty."""
    missing = [
        f"{paths.raw / dataset}: no pictures; {_remedy(dataset)}"
        for dataset in datasets
        if is_empty(paths.raw / dataset)
    ]
    if missing:
        raise DataError("; ".join(missing))


def read_source(dataset: str, adapter: str, paths: Paths) -> Source:
    """Read a data set below data/raw, batch by batch; DataError where it has no images."""
    folder = paths.raw / dataset
    # With `cache.type symlink`, DVC replaces files by links into its cache.
    listing = list_files(folder, linked_from=[paths.at(".dvc/cache")])
    entries: list[Entry] = []
    refused: list[Reject] = []
    notes: list[str] = []
    for batch, part in _batches(listing).items():
        source = read_folder(folder / batch, part, dataset, batch, adapter)
        entries += source.entries
        refused += source.refused
        notes += source.notes
    if not (entries or refused):
        raise DataError(f"{folder}: no pictures beside its tables; {_remedy(dataset)}")
    entries.sort(key=lambda entry: entry.path)
    return Source(entries, refused, tuple(notes))


def read_folder(folder: Path, listing: Listing, dataset: str, batch: str, adapter: str) -> Source:
    """Read the listed files of one folder, which may be outside data/raw, with an adapter.

    `batch` is the name of the batch, "" for a data set without batches. The adapter may raise
    DataError.
    """
    prefix = f"{batch}/" if batch else ""
    reading = ADAPTERS[adapter](folder, listing.files)
    entries = [
        Entry(dataset, prefix + path, _with_batch(reading.labels[path], batch))
        for path in listing.files
        if path not in reading.side_files
    ]
    faults = {**reading.missing, **listing.faults}
    rejects = [reject(dataset, prefix + path, fault) for path, fault in faults.items()]
    notes = tuple(f"{batch}: {note}" if batch else note for note in reading.notes)
    return Source(entries, rejects, notes)


def _batches(listing: Listing) -> dict[str, Listing]:
    """Split a data set's listing by batch ("" for files in none), without the files `_READY`."""
    names = {
        path.removesuffix(f"/{READY}")
        for path in listing.files
        if path.count("/") == 1 and path.endswith(f"/{READY}")
    }
    files: dict[str, list[str]] = {name: [] for name in ("", *sorted(names))}
    faults: dict[str, dict[str, Fault]] = {name: {} for name in files}
    for path in listing.files:
        batch, inner = _split(path, names)
        if not (batch and inner == READY):
            files[batch].append(inner)
    for path, fault in listing.faults.items():
        batch, inner = _split(path, names)
        faults[batch][inner] = fault
    if names and not (files[""] or faults[""]):
        del files[""]  # some adapters fail for an empty folder
    return {name: Listing(tuple(files[name]), faults[name]) for name in files}


def _split(path: str, batches: set[str]) -> tuple[str, str]:
    """Return the batch of a path ("" for none), and the path below it."""
    first, _, rest = path.partition("/")
    return (first, rest) if first in batches else ("", path)


def _with_batch(label: Label | Fault, batch: str) -> Label | Fault:
    if not batch or isinstance(label, Fault):
        return label
    return dataclasses.replace(label, batch=batch)


def is_empty(folder: Path) -> bool:
    """Return whether a folder is missing or empty."""
    return not (folder.is_dir() and any(folder.iterdir()))


def _remedy(dataset: str) -> str:
    if dataset == DRAWN_DATASET:
        return "the stage `draw` makes them: run `affectgap run`"
    return (
        f"run `affectgap intake PATH --dataset {dataset}` "
        f"(`affectgap datasets show {dataset}` says how to get a known set)"
    )
