"""A data set's folder as entries to decode and entries to refuse, through its adapter."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tasks.core.errors import DataError
from tasks.core.labels import DRAWN_DATASET
from tasks.core.paths import Paths
from tasks.ingest.adapters import ADAPTERS
from tasks.ingest.catalogue import DATASETS
from tasks.ingest.label import Fault, Label, shown
from tasks.ingest.listing import list_files


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
    """List a data set and ask its adapter about every file.

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
    reading = ADAPTERS[adapter](folder, listing.files)
    pictures = (path for path in listing.files if path not in reading.side_files)
    entries = [Entry(dataset, path, reading.labels[path]) for path in pictures]
    refused = {**reading.missing, **listing.faults}
    if not (entries or refused):
        raise DataError(f"{folder}: no pictures beside its tables; {_remedy(dataset)}")
    rejects = [reject(dataset, path, fault) for path, fault in refused.items()]
    return Source(entries, rejects, reading.notes)


def _is_empty(folder: Path) -> bool:
    return not (folder.is_dir() and any(folder.iterdir()))


def _remedy(dataset: str) -> str:
    if dataset == DRAWN_DATASET:
        return "the stage `draw` makes them: run `affectgap run`"
    shown = f" (`affectgap datasets show {dataset}` says how to get them)"
    return f"run `affectgap intake PATH --dataset {dataset}`" + shown * (dataset in DATASETS)
