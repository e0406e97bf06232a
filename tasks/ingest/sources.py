"""A data set's folder as entries to decode and entries to refuse, through its adapter.

A folder directly below it that holds `_READY` is a batch that came through the inbox: the adapter
reads it by itself, with its own tables, and its pictures bear its name in the column `batch`.
"""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tasks.core.errors import DataError
from tasks.core.labels import DRAWN_DATASET
from tasks.core.paths import Paths
from tasks.ingest.adapters import ADAPTERS
from tasks.ingest.catalogue import DATASETS
from tasks.ingest.label import Fault, Label, shown
from tasks.ingest.listing import Listing, list_files

READY = "_READY"  # whoever gives a batch writes it last


class Entry(NamedTuple):
    """A file that may be a picture: its data set, its path below that, and its labels."""

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
        """Return the key that rejects are sorted by."""
        return self.path, self.reason, self.detail


def reject(dataset: str, path: str, fault: Fault, image_id: str = "") -> Reject:
    """Make a reject of a file; its path is shown below data/raw, as printable UTF-8."""
    return Reject(image_id, f"{dataset}/{shown(path)}", fault.reason, fault.detail)


class Source(NamedTuple):
    """A data set's folder, read.

    Attributes
    ----------
    entries
        Files that may be pictures, in the order of their paths.
    refused
        What is refused without being read: entries that are no files to read, and files that a
        side file lists but that are not there.
    notes
        What was not understood in a side file, a line each.
    """

    entries: list[Entry]
    refused: list[Reject]
    notes: tuple[str, ...]


def require_folders(datasets: Iterable[str], paths: Paths) -> None:
    """Raise DataError with one line that names every data set whose folder holds nothing."""
    missing = [
        f"{paths.raw / dataset}: no pictures; {_remedy(dataset)}"
        for dataset in datasets
        if _is_empty(paths.raw / dataset)
    ]
    if missing:
        raise DataError("; ".join(missing))


def read_source(dataset: str, adapter: str, paths: Paths) -> Source:
    """List a data set and ask its adapter about every file, batch by batch.

    Parameters
    ----------
    dataset
        The folder's name below data/raw.
    adapter
        A name in `ADAPTERS`.
    paths
        The project's folders.

    Raises
    ------
    DataError
        One line where the folder holds no pictures, or from the adapter.
    """
    folder = paths.raw / dataset
    # With `cache.type symlink` DVC puts links into its cache in place of the files.
    listing = list_files(folder, linked_from=[paths.at(".dvc/cache")])
    entries: list[Entry] = []
    refused: list[Reject] = []
    notes: list[str] = []
    for batch, part in _batches(listing).items():
        found = read_folder(folder / batch, part, dataset, batch, adapter)
        entries += found.entries
        refused += found.refused
        notes += found.notes
    if not (entries or refused):
        raise DataError(f"{folder}: no pictures beside its tables; {_remedy(dataset)}")
    entries.sort(key=lambda entry: entry.path)
    return Source(entries, refused, tuple(notes))


def read_folder(folder: Path, listing: Listing, dataset: str, batch: str, adapter: str) -> Source:
    """Ask an adapter about the files of one folder: a batch, or a data set without batches.

    Parameters
    ----------
    folder
        Where the files lie now.
    listing
        What is in it.
    dataset
        The data set that it belongs to.
    batch
        The batch's name: its folder below that of the data set; "" for the data set itself.
    adapter
        A name in `ADAPTERS`.

    Raises
    ------
    DataError
        From the adapter, one line.
    """
    below = f"{batch}/" if batch else ""
    reading = ADAPTERS[adapter](folder, listing.files)
    pictures = [path for path in listing.files if path not in reading.side_files]
    entries = [
        Entry(dataset, below + path, _of_batch(reading.labels[path], batch)) for path in pictures
    ]
    refused = {**reading.missing, **listing.faults}
    rejects = [reject(dataset, below + path, fault) for path, fault in refused.items()]
    notes = tuple(f"{batch}: {note}" if batch else note for note in reading.notes)
    return Source(entries, rejects, notes)


def _batches(listing: Listing) -> dict[str, Listing]:
    """Part a data set's listing by batch ("": what is in none); the marks `_READY` go."""
    names = {
        path.removesuffix(f"/{READY}")
        for path in listing.files
        if path.count("/") == 1 and path.endswith(f"/{READY}")
    }
    files: dict[str, list[str]] = {name: [] for name in ("", *sorted(names))}
    faults: dict[str, dict[str, Fault]] = {name: {} for name in files}
    for path in listing.files:
        batch, inner = _place(path, names)
        if not (batch and inner == READY):
            files[batch].append(inner)
    for path, fault in listing.faults.items():
        batch, inner = _place(path, names)
        faults[batch][inner] = fault
    if names and not (files[""] or faults[""]):
        del files[""]  # an adapter would stumble over an empty folder
    return {name: Listing(tuple(files[name]), faults[name]) for name in files}


def _place(path: str, batches: set[str]) -> tuple[str, str]:
    """Return the batch that a path is in ("" for none), and the path below it."""
    first, _, rest = path.partition("/")
    return (first, rest) if first in batches else ("", path)


def _of_batch(label: Label | Fault, batch: str) -> Label | Fault:
    if not batch or isinstance(label, Fault):
        return label
    return dataclasses.replace(label, batch=batch)


def _is_empty(folder: Path) -> bool:
    return not (folder.is_dir() and any(folder.iterdir()))


def _remedy(dataset: str) -> str:
    if dataset == DRAWN_DATASET:
        return "the stage `draw` makes them: run `affectgap run`"
    shown = f" (`affectgap datasets show {dataset}` says how to get them)"
    return f"run `affectgap intake PATH --dataset {dataset}`" + shown * (dataset in DATASETS)
