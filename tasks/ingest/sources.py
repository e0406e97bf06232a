"""A data set's folder as entries to decode and entries to refuse, through its adapter."""

from typing import NamedTuple

from tasks.core.errors import DataError
from tasks.core.labels import DRAWN_DATASET
from tasks.core.paths import Paths
from tasks.ingest.adapters import ADAPTERS
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


def read_source(dataset: str, adapter: str, paths: Paths) -> tuple[list[Entry], list[Reject]]:
    """List a data set and ask its adapter about every file.

    Parameters
    ----------
    dataset
        The folder's name below data/raw.
    adapter
        A name in `ADAPTERS`.
    paths
        The project's folders.

    Returns
    -------
    tuple of two lists
        Entries in the order of their paths, and what is refused without being read: entries that
        are no files to read, and files that a side file lists but that are not there.

    Raises
    ------
    DataError
        One line where the folder is missing or holds nothing.
    """
    folder = paths.raw / dataset
    # With `cache.type symlink` DVC puts links into its cache in place of the files.
    listing = list_files(folder, linked_from=[paths.at(".dvc/cache")]) if folder.is_dir() else None
    if listing is None or not (listing.files or listing.faults):
        raise DataError(f"{folder}: no pictures; {_remedy(dataset)}")
    reading = ADAPTERS[adapter](folder, listing.files)
    pictures = (path for path in listing.files if path not in reading.side_files)
    entries = [Entry(dataset, path, reading.labels[path]) for path in pictures]
    refused = {**reading.missing, **listing.faults}
    if not (entries or refused):
        raise DataError(f"{folder}: no pictures beside its tables; {_remedy(dataset)}")
    return entries, [reject(dataset, path, fault) for path, fault in refused.items()]


def _remedy(dataset: str) -> str:
    if dataset == DRAWN_DATASET:
        return "the stage `draw` makes them: run `affectgap run`"
    return f"run `affectgap intake PATH --dataset {dataset}`"
