"""Validation of a batch in place, with the code of the stage `ingest`.

Every file is hashed, every image decoded and every label read, so that an accepted batch also
passes `ingest`.
"""

import hashlib
import stat
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from flows.intake.entries import BatchReading, BatchRejectedError, BatchStillChangingError
from tasks.core.cache.result_cache import Kept
from tasks.core.errors import DataError
from tasks.core.files import sha256_of
from tasks.core.parallel.execution import process_pool
from tasks.core.parallel.progress import track
from tasks.ingest.dataset_reader import READY, Reject, read_folder
from tasks.ingest.label import printable_path
from tasks.ingest.labels_csv import require_no_similar
from tasks.ingest.list_files import Listing, list_files
from tasks.ingest.manifest import Bands, make_rows, manifest_table
from tasks.ingest.scan import Scan, notes_on, scan_with_cache

_REJECTED = frozenset(
    ["outside_link", "linked_folder", "broken_link", "not_a_file", "not_utf8_name", "unreadable"]
)
_MAX_LISTED = 5  # files named in a message


@dataclass(frozen=True)
class ReadOptions:
    """Settings of section `ingest` for a batch; `kept` is the file of cached scans."""

    dataset: str
    adapter: str
    age_bands: Bands
    max_pixels: int
    workers: int
    kept: Path


def read_batch(
    folder: Path, batch: str, options: ReadOptions, linked_from: Sequence[Path] = ()
) -> BatchReading:
    """Read a batch.

    Parameters
    ----------
    folder
        Its folder, which may be outside data/raw.
    batch
        Its name, for paths `<dataset>/<batch>/…`; "" for a complete data set.
    linked_from
        Folders that links may lead into: DVC's cache, for batches in data/raw.

    Raises
    ------
    BatchRejectedError
        For a link, a pipe, a name that is not UTF-8, a file that cannot be opened, or labels that
        the adapter does not understand.
    BatchStillChangingError
        If a file disappeared meanwhile.
    """
    listing = _without_marks(list_files(folder, linked_from))
    rejected = [
        f"'{printable_path(path)}': {fault.reason} ({fault.detail})"
        for path, fault in listing.faults.items()
        if fault.reason in _REJECTED
    ]
    _raise_for([*rejected, *_special_files(folder, listing, linked_from, except_for=_REJECTED)])
    try:
        if options.adapter == "folder" and batch:
            require_no_similar(folder, listing.files)
        source = read_folder(folder, listing, options.dataset, batch, options.adapter)
    except DataError as error:
        raise BatchRejectedError([str(error).replace(f"{folder}/", "")]) from None
    prefix = f"{batch}/" if batch else ""
    inner = [entry.path.removeprefix(prefix) for entry in source.entries]
    scans = _scan([folder / path for path in inner], options)
    rows, rejects = make_rows(source.entries, scans, options.age_bands)
    digests = {path: scan.sha256 for path, scan in zip(inner, scans, strict=True)}
    left_out = [reject for reject in (*source.refused, *rejects) if reject.reason != "hidden"]
    files = [*listing.files, *listing.faults]
    return BatchReading(
        options.dataset,
        manifest_table(rows),
        tuple(sorted(left_out, key=Reject.order)),
        digest_from(_contents(folder, files, digests)),
        len(files),
        notes_on(scans),
    )


def digest_of(folder: Path, linked_from: Sequence[Path] = ()) -> str:
    """Return the digest of a batch, like `read_batch`, without decoding images.

    Raises BatchRejectedError for a link, a pipe or a file that cannot be opened, and
    BatchStillChangingError if a file disappeared meanwhile.
    """
    listing = _without_marks(list_files(folder, linked_from))
    _raise_for(_special_files(folder, listing, linked_from, except_for=frozenset()))
    return digest_from(_contents(folder, [*listing.files, *listing.faults], {}))


def digest_from(contents: Mapping[str, str]) -> str:
    """Return the digest of a batch from the sha256 of each file, by relative path."""
    digest = hashlib.sha256()
    for path in sorted(contents):
        digest.update(f"{printable_path(path)}\0{contents[path]}\n".encode())
    return digest.hexdigest()


def _scan(files: Sequence[Path], options: ReadOptions) -> list[Scan]:
    """Decode the images, and cache the scans for the stage `ingest`."""
    with process_pool(options.workers) as executor, closing(Kept(options.kept)) as cache:
        scans = scan_with_cache(files, options.max_pixels, executor, options.workers, cache)
        return list(track(scans, len(files), "intake"))


def _without_marks(listing: Listing) -> Listing:
    return Listing(tuple(path for path in listing.files if path != READY), listing.faults)


def _raise_for(reasons: Sequence[str]) -> None:
    omitted = len(reasons) - _MAX_LISTED
    if reasons:
        raise BatchRejectedError(
            [*reasons[:_MAX_LISTED], *([f"and {omitted} more"] if omitted > 0 else [])]
        )


def _special_files(
    folder: Path, listing: Listing, linked_from: Sequence[Path], except_for: frozenset[str]
) -> list[str]:
    """List links and pipes, hidden or not, except for faults of some reasons."""
    targets = [target.resolve() for target in linked_from]
    reasons = {path: "is a link" for path in listing.files}
    reasons |= {
        path: f"{fault.reason}, and not a plain file"
        for path, fault in listing.faults.items()
        if fault.reason not in except_for
    }
    return [
        f"'{printable_path(path)}': {reason}"
        for path, reason in reasons.items()
        if not _is_plain(folder / path, targets)
    ]


def _is_plain(path: Path, targets: Sequence[Path]) -> bool:
    """Return whether a path is a file, or a link to one below some folders."""
    try:
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode) and any(path.resolve().is_relative_to(target) for target in targets):
            mode = path.stat().st_mode
    except FileNotFoundError:
        raise BatchStillChangingError(f"'{printable_path(path.name)}' disappeared") from None
    return stat.S_ISREG(mode)


def _contents(folder: Path, files: Sequence[str], digests: Mapping[str, str]) -> dict[str, str]:
    """Return the sha256 of each file, computing those that are not in `digests`."""
    try:
        return {path: digests.get(path) or sha256_of(folder / path) for path in files}
    except FileNotFoundError as error:
        raise BatchStillChangingError(
            f"'{printable_path(Path(error.filename).name)}' disappeared"
        ) from None
    except OSError as error:
        name = printable_path(Path(error.filename or folder).name)
        raise BatchRejectedError([f"'{name}' cannot be read ({error.strerror})"]) from None
