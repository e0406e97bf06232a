"""Reading a batch where it lies: every file hashed, every picture decoded, every label understood.

The same code that the stage `ingest` runs on data/raw, so that what passes here passes there.
"""

import hashlib
import stat
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from tasks.core.errors import DataError
from tasks.core.execution import process_pool
from tasks.core.files import sha256_of
from tasks.core.kept import Kept
from tasks.core.progress import track
from tasks.ingest.decode import Scan, notes_on, scan_new_files
from tasks.ingest.inbox.faults import ChangedError, RefusedError
from tasks.ingest.label import shown
from tasks.ingest.labels_csv import require_no_similar
from tasks.ingest.listing import Listing, list_files
from tasks.ingest.manifest import Bands, manifest_table
from tasks.ingest.pictures import make_rows
from tasks.ingest.sources import READY, Reject, read_folder

_NOT_TAKEN = frozenset(
    ["outside_link", "linked_folder", "broken_link", "not_a_file", "not_utf8_name", "unreadable"]
)
_SHOWN = 5  # files that a reason names


@dataclass(frozen=True)
class BatchReading:
    """What is in a batch.

    Attributes
    ----------
    dataset
        The data set that it belongs to.
    rows
        Its usable pictures as rows of the manifest.
    left_out
        Files that are no usable picture, each with its reason; hidden ones are not among them.
    digest
        sha256 of all files' names and contents, without the mark `_READY`.
    n_files
        How many those are.
    notes
        What there is to know of how values of pictures were read, a line each.
    """

    dataset: str
    rows: pd.DataFrame
    left_out: tuple[Reject, ...]
    digest: str
    n_files: int
    notes: tuple[str, ...] = ()

    @property
    def reasons(self) -> dict[str, int]:
        """Reasons for which files are left out, with their counts."""
        return dict(Counter(reject.reason for reject in self.left_out))

    def examples(self) -> list[str]:
        """Name the first files that are left out, a line each."""
        lines = [f"{left.path}: {left.reason} ({left.detail})" for left in self.left_out[:_SHOWN]]
        more = len(self.left_out) - len(lines)
        return [*lines, f"and {more} more files"] if more > 0 else lines


@dataclass(frozen=True)
class HowToRead:
    """The data set of a batch and what section `ingest` says of reading it.

    `kept` is the file in which `ingest` keeps what decoding showed.
    """

    dataset: str
    adapter: str
    age_bands: Bands
    max_pixels: int
    workers: int
    kept: Path


def read_batch(
    folder: Path, batch: str, how: HowToRead, linked_from: Sequence[Path] = ()
) -> BatchReading:
    """Read a batch.

    Parameters
    ----------
    folder
        Where its files lie now.
    batch
        Its name: paths in the rows are `<dataset>/<batch>/…`; "" for a whole data set.
    how
        How it is read.
    linked_from
        Folders that links may lead into: DVC's cache, for what is part of the data already.

    Raises
    ------
    RefusedError
        For a link, a pipe, a name that is not UTF-8, a file that cannot be opened, or labels that
        the adapter does not understand.
    ChangedError
        Where a file went away meanwhile.
    """
    listing = _without_marks(list_files(folder, linked_from))
    refused = [
        f"'{shown(path)}': {fault.reason} ({fault.detail})"
        for path, fault in listing.faults.items()
        if fault.reason in _NOT_TAKEN
    ]
    _refuse([*refused, *_odd_entries(folder, listing, linked_from, but=_NOT_TAKEN)])
    try:
        if how.adapter == "folder" and batch:
            require_no_similar(folder, listing.files)
        source = read_folder(folder, listing, how.dataset, batch, how.adapter)
    except DataError as error:
        raise RefusedError([str(error).replace(f"{folder}/", "")]) from None
    below = f"{batch}/" if batch else ""
    inner = [entry.path.removeprefix(below) for entry in source.entries]
    scans = _scan([folder / path for path in inner], how)
    rows, rejects = make_rows(source.entries, scans, how.age_bands)
    known = {path: scan.sha256 for path, scan in zip(inner, scans, strict=True)}
    left_out = [left for left in (*source.refused, *rejects) if left.reason != "hidden"]
    files = [*listing.files, *listing.faults]
    return BatchReading(
        how.dataset,
        manifest_table(rows),
        tuple(sorted(left_out, key=Reject.order)),
        digest_from(_contents(folder, files, known)),
        len(files),
        notes_on(scans),
    )


def digest_of(folder: Path, linked_from: Sequence[Path] = ()) -> str:
    """Return the digest of a batch that lies somewhere, as `read_batch` does.

    Raises RefusedError for a link, a pipe or a file that cannot be opened; ChangedError where a
    file went away meanwhile.
    """
    listing = _without_marks(list_files(folder, linked_from))
    _refuse(_odd_entries(folder, listing, linked_from, but=frozenset()))
    return digest_from(_contents(folder, [*listing.files, *listing.faults], {}))


def digest_from(contents: Mapping[str, str]) -> str:
    """Return the digest of a batch of which the sha256 of each file is known, by path below it."""
    digest = hashlib.sha256()
    for path in sorted(contents):
        digest.update(f"{shown(path)}\0{contents[path]}\n".encode())
    return digest.hexdigest()


def _scan(files: Sequence[Path], how: HowToRead) -> list[Scan]:
    """Decode the pictures; what was seen stays for the stage `ingest`, which then only hashes."""
    with process_pool(how.workers) as executor, closing(Kept(how.kept)) as kept:
        scans = scan_new_files(files, how.max_pixels, executor, how.workers, kept)
        return list(track(scans, len(files), "intake"))


def _without_marks(listing: Listing) -> Listing:
    return Listing(tuple(path for path in listing.files if path != READY), listing.faults)


def _refuse(reasons: Sequence[str]) -> None:
    if reasons:
        raise RefusedError([*reasons[:_SHOWN], *_more(reasons)])


def _odd_entries(
    folder: Path, listing: Listing, linked_from: Sequence[Path], but: frozenset[str]
) -> list[str]:
    """Name what must not be opened, hidden or not: links, and pipes, whose reading never ends.

    Entries refused for a reason of `but` are left out.
    """
    cached = [place.resolve() for place in linked_from]
    told = {path: "is a link" for path in listing.files}
    told |= {
        path: f"{fault.reason}, and no plain file"
        for path, fault in listing.faults.items()
        if fault.reason not in but
    }
    return [
        f"'{shown(path)}': {what}"
        for path, what in told.items()
        if not _is_plain(folder / path, cached)
    ]


def _is_plain(path: Path, cached: Sequence[Path]) -> bool:
    """Whether it is a file, or a link to one below these folders."""
    try:
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode) and any(path.resolve().is_relative_to(place) for place in cached):
            mode = path.stat().st_mode
    except FileNotFoundError:
        raise ChangedError(f"'{shown(path.name)}' went away") from None
    return stat.S_ISREG(mode)


def _contents(folder: Path, files: Sequence[str], known: Mapping[str, str]) -> dict[str, str]:
    try:
        return {path: known.get(path) or sha256_of(folder / path) for path in files}
    except FileNotFoundError as error:
        raise ChangedError(f"'{shown(Path(error.filename).name)}' went away") from None
    except OSError as error:
        told = f"'{shown(Path(error.filename or folder).name)}' cannot be read ({error.strerror})"
        raise RefusedError([told]) from None


def _more(lines: Sequence[str]) -> list[str]:
    return [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
