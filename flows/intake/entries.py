"""Entries of the inbox, and detection of changes; only the files `_READY` are opened."""

import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from flows.intake.archives import SUFFIXES
from flows.intake.settings import Params
from tasks.core import safe_yaml
from tasks.core.text import clean
from tasks.ingest.dataset_reader import READY, Reject
from tasks.ingest.label import DATASET_NAME, printable_path
from tasks.ingest.list_files import is_system_file

DONE = ".done-"  # prefix of batches that were imported by copying and can be removed
_MAX_LISTED = 5  # files named in a message
_MARK_BYTES = 4096
_MAX_DEPTH = 20  # of nested folders
_MB = 1_000_000
Stamp = tuple[int, int, int, int]  # inode, bytes, mtime and ctime in ns


@dataclass(frozen=True)
class BatchReading:
    """Contents of a batch.

    Attributes
    ----------
    rows
        Its usable images as rows of the manifest.
    left_out
        Rejects of all other files, except hidden ones.
    digest
        sha256 of the names and contents of all files except `_READY`.
    n_files
        The number of these files.
    notes
        One line for each remark on how images were read.
    """

    dataset: str
    rows: pd.DataFrame
    left_out: tuple[Reject, ...]
    digest: str
    n_files: int
    notes: tuple[str, ...] = ()

    @property
    def reasons(self) -> dict[str, int]:
        """Number of rejects per reason."""
        return dict(Counter(reject.reason for reject in self.left_out))

    def examples(self) -> list[str]:
        """Return one line per reject, for the first few."""
        lines = [
            f"{reject.path}: {reject.reason} ({reject.detail})"
            for reject in self.left_out[:_MAX_LISTED]
        ]
        omitted = len(self.left_out) - len(lines)
        return [*lines, f"and {omitted} more files"] if omitted > 0 else lines


class BatchRejectedError(Exception):
    """The batch goes to quarantine; has one line per reason, and what was read so far."""

    def __init__(self, reasons: Sequence[str], reading: "BatchReading | None" = None) -> None:
        super().__init__(*reasons)
        self.reasons = list(reasons)
        self.reading = reading


class DuplicateBatchError(BatchRejectedError):
    """The same batch was submitted before."""


class BatchStillChangingError(Exception):
    """The batch stays in the inbox because its sender is still writing it."""


@dataclass(frozen=True)
class InboxEntry:
    """An entry of the inbox.

    Attributes
    ----------
    mark
        Path of its file `_READY`: in the folder, or beside the archive.
    not_ready
        Why it is not ready; "" where it is.
    """

    path: Path
    mark: Path
    kind: Literal["folder", "archive", "link", "other"]
    not_ready: str

    @property
    def sources(self) -> list[Path]:
        """All paths that belong to the batch, the batch itself first."""
        return [self.path, self.mark] if self._marked_beside else [self.path]

    @property
    def name(self) -> str:
        """The sender's name for the batch, without an archive's suffix."""
        name = self.path.name
        return name[: -len(_suffix(name))] if self._marked_beside else name

    @property
    def _marked_beside(self) -> bool:
        """Whether it is an archive, or a link marked like one."""
        return self.kind != "other" and self.mark.parent == self.path.parent


def inbox_entry(path: Path) -> InboxEntry | None:
    """Return the entry of the inbox at a path, None where it does not exist."""
    try:
        return _entry(path, path.lstat().st_mode)
    except FileNotFoundError:
        return None
    except PermissionError as error:  # an unreadable folder must not stop other batches
        return InboxEntry(path, path, "other", f"cannot be opened ({error.strerror})")


def _entry(path: Path, mode: int) -> InboxEntry:
    inside = path / READY
    beside = [path.with_name(path.name + end) for end in (f".{READY}", READY)]
    if not _suffix(path.name):
        beside = []
    if stat.S_ISDIR(mode):
        return InboxEntry(
            path, inside, "folder", "" if inside.is_file() else f"no {READY} in it yet"
        )
    if stat.S_ISREG(mode) and beside:
        mark = _existing(beside)
        return InboxEntry(
            path, mark, "archive", "" if mark.is_file() else f"no {mark.name} beside it"
        )
    if stat.S_ISLNK(mode):
        mark = _existing([*beside, inside])
        return InboxEntry(path, mark, "link", "" if mark.is_file() else "is a link")
    return InboxEntry(
        path, path, "other", f"is neither a folder nor an archive ({', '.join(SUFFIXES)})"
    )


def _existing(marks: Sequence[Path]) -> Path:
    """Return the first existing file, or else the first, whose name is the preferred one."""
    return next((mark for mark in marks if mark.is_file()), marks[0])


def find_batches(inbox: Path) -> list[InboxEntry]:
    """Return the entries of the inbox by name, without hidden files and files `_READY`."""
    try:
        names = sorted(os.listdir(inbox), key=os.fsencode)
    except FileNotFoundError:
        return []
    archives = {name for name in names if _suffix(name)}
    marks = {name + READY for name in archives} | {f"{name}.{READY}" for name in archives}
    return [
        entry
        for name in names
        if not (name.startswith(".") or is_system_file(name) or name in marks)
        and (entry := inbox_entry(inbox / name))
    ]


def dataset_of(entry: InboxEntry, params: Params) -> str:
    """Return a batch's data set from its file `_READY`, which is empty or has `dataset: NAME`.

    Raises BatchRejectedError for any other content.
    """
    try:
        with entry.mark.open("rb") as handle:
            content = handle.read(_MARK_BYTES + 1)
    except FileNotFoundError:
        raise BatchStillChangingError(f"{READY} disappeared") from None
    try:
        mapping = safe_yaml.load(content.decode("utf-8"), max_characters=_MARK_BYTES)
    except Exception:  # noqa: BLE001 - the library raises anything on hostile bytes
        mapping = content
    if mapping is None:
        return params.dataset
    if isinstance(mapping, dict) and [*mapping] == ["dataset"]:
        name = mapping["dataset"]
        if isinstance(name, str) and DATASET_NAME.fullmatch(clean(name)):
            return clean(name)
    raise BatchRejectedError([f"{READY} must be empty or contain only `dataset: NAME`"])


def snapshot(entry: InboxEntry, params: Params) -> dict[str, Stamp]:
    """Return the stamps of a batch's files, to detect later whether they changed.

    Raises
    ------
    BatchRejectedError
        If the batch exceeds a limit of `params`.
    BatchStillChangingError
        If a file disappeared meanwhile.
    """
    try:
        if entry.kind == "archive":
            return {path.name: _stamp(path.lstat()) for path in entry.sources}
        return snapshot_folder(entry.path, params)
    except FileNotFoundError as error:
        raise BatchStillChangingError(
            f"'{printable_path(Path(error.filename).name)}' disappeared"
        ) from None


def snapshot_folder(folder: Path, params: Params) -> dict[str, Stamp]:
    """Return the stamps of a folder's files by relative path; BatchRejectedError beyond a limit."""
    stamps: dict[str, Stamp] = {}
    all_bytes = 0
    for path, status in _walk(folder):
        stamps[path] = _stamp(status)
        all_bytes += status.st_size
        if len(stamps) > params.max_files + 1:  # one for the file `_READY`
            raise BatchRejectedError([f"more than {params.max_files} files (intake.max_files)"])
        if status.st_size > params.max_file_mb * _MB:
            size = f"'{printable_path(path)}' has {status.st_size / _MB:.1f} MB"
            raise BatchRejectedError(
                [f"{size}, more than {params.max_file_mb:g} (intake.max_file_mb)"]
            )
        if all_bytes > params.max_batch_mb * _MB:
            raise BatchRejectedError(
                [f"more than {params.max_batch_mb:g} MB (intake.max_batch_mb)"]
            )
    return stamps


def stamp_of(entry: InboxEntry) -> str:
    """Return an ID that distinguishes this delivery from others of the same name."""
    try:
        status = (entry.mark if entry.kind == "folder" else entry.path).lstat()
    except OSError:
        return ""
    return f"{status.st_ino}-{status.st_mtime_ns}"


def _suffix(name: str) -> str:
    ends = [end for end in SUFFIXES if name.lower().endswith(end) and len(name) > len(end)]
    return max(ends, key=len, default="")


def _walk(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield every file, link, … below a folder, with its status (links are not followed)."""
    folders = [("", 0)]
    while folders:
        below, depth = folders.pop()
        if depth > _MAX_DEPTH:
            raise BatchRejectedError([f"its folders are nested more than {_MAX_DEPTH} deep"])
        try:
            with os.scandir(folder / below) as entries:
                for entry in entries:
                    path = f"{below}/{entry.name}" if below else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        folders.append((path, depth + 1))
                    else:
                        yield path, entry.stat(follow_symlinks=False)
        except PermissionError as error:
            raise BatchRejectedError(
                [f"'{printable_path(below)}' cannot be opened ({error.strerror})"]
            ) from None


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def require_unchanged(before: dict[str, Stamp], after: dict[str, Stamp]) -> None:
    """Raise BatchStillChangingError, with one example, where two results of `snapshot` differ."""
    new, gone = sorted(after.keys() - before.keys()), sorted(before.keys() - after.keys())
    changed = sorted(path for path in before.keys() & after.keys() if before[path] != after[path])
    for verb, paths in (("was added", new), ("was removed", gone), ("was changed", changed)):
        if paths:
            raise BatchStillChangingError(f"'{printable_path(paths[0])}' {verb} during the check")
