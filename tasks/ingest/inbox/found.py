"""What lies in the inbox, and whether it holds still: nothing is opened but the marks `_READY`."""

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tasks.core import safe_yaml
from tasks.core.text import clean
from tasks.ingest.archives import SUFFIXES
from tasks.ingest.inbox.faults import ChangedError, RefusedError
from tasks.ingest.inbox.settings import Params
from tasks.ingest.label import DATASET_NAME, shown
from tasks.ingest.listing import is_of_system
from tasks.ingest.sources import READY

DONE = ".done-"  # what was taken in by copying, until it is removed

_MARK_BYTES = 4096
_MAX_DEPTH = 20  # folders within folders
_MB = 1_000_000

Stamp = tuple[int, int, int, int]  # inode, bytes, time of change of content and of status in ns


@dataclass(frozen=True)
class Found:
    """An entry of the inbox.

    Attributes
    ----------
    path
        The folder or archive, or the link to one.
    mark
        Where its `_READY` is: in the folder, or beside the archive.
    kind
        What it is.
    not_ready
        Why it is left alone for now; "" where it is ready.
    """

    path: Path
    mark: Path
    kind: Literal["folder", "archive", "link", "other"]
    not_ready: str

    @property
    def sources(self) -> list[Path]:
        """Everything in the inbox that belongs to the batch, the batch itself first."""
        return [self.path, self.mark] if self._marked_beside else [self.path]

    @property
    def name(self) -> str:
        """The name that the sender gave, without an archive's suffix."""
        name = self.path.name
        return name[: -len(_suffix(name))] if self._marked_beside else name

    @property
    def _marked_beside(self) -> bool:
        """Whether it is an archive, or a link that was given as one."""
        return self.kind != "other" and self.mark.parent == self.path.parent


def found_at(path: Path) -> Found | None:
    """Look at one entry of the inbox; None where it is not there."""
    try:
        return _found(path, path.lstat().st_mode)
    except FileNotFoundError:
        return None
    except PermissionError as error:  # one folder that others may not read stops no other batch
        return Found(path, path, "other", f"cannot be opened ({error.strerror})")


def _found(path: Path, mode: int) -> Found:
    inside = path / READY
    beside = [path.with_name(path.name + end) for end in (f".{READY}", READY)]
    if not _suffix(path.name):
        beside = []
    if stat.S_ISDIR(mode):
        return Found(path, inside, "folder", "" if inside.is_file() else f"no {READY} in it yet")
    if stat.S_ISREG(mode) and beside:
        mark = _one_there(beside)
        return Found(path, mark, "archive", "" if mark.is_file() else f"no {mark.name} beside it")
    if stat.S_ISLNK(mode):
        mark = _one_there([*beside, inside])
        return Found(path, mark, "link", "" if mark.is_file() else "is a link")
    return Found(path, path, "other", f"is no folder and no archive ({', '.join(SUFFIXES)})")


def _one_there(marks: Sequence[Path]) -> Path:
    """Return the first of these marks that is there, or else the first: how it should be called."""
    return next((mark for mark in marks if mark.is_file()), marks[0])


def find_batches(inbox: Path) -> list[Found]:
    """List the inbox by name; hidden entries and the marks of archives are no batches."""
    try:
        names = sorted(os.listdir(inbox), key=os.fsencode)
    except FileNotFoundError:
        return []
    archives = {name for name in names if _suffix(name)}
    marks = {name + READY for name in archives} | {f"{name}.{READY}" for name in archives}
    return [
        found
        for name in names
        if not (name.startswith(".") or is_of_system(name) or name in marks)
        and (found := found_at(inbox / name))
    ]


def dataset_of(found: Found, params: Params) -> str:
    """Read which data set a batch belongs to from its mark: empty, or `dataset: NAME`.

    Raises RefusedError for any other content.
    """
    try:
        with found.mark.open("rb") as handle:
            content = handle.read(_MARK_BYTES + 1)
    except FileNotFoundError:
        raise ChangedError(f"{READY} went away") from None
    try:
        told = safe_yaml.load(content.decode("utf-8"), max_characters=_MARK_BYTES)
    except Exception:  # noqa: BLE001 - the library raises anything on hostile bytes
        told = content
    if told is None:
        return params.dataset
    if isinstance(told, dict) and [*told] == ["dataset"]:
        name = told["dataset"]
        if isinstance(name, str) and DATASET_NAME.fullmatch(clean(name)):
            return clean(name)
    raise RefusedError([f"{READY} must be empty or hold `dataset: NAME` and nothing else"])


def look_at(found: Found, params: Params) -> dict[str, Stamp]:
    """Return a stamp of everything that belongs to a batch, to see later whether it held still.

    Parameters
    ----------
    found
        The batch.
    params
        The limits on files, their sizes and all together.

    Raises
    ------
    RefusedError
        Where it is beyond a limit; the rest of it is then not looked at.
    ChangedError
        Where it went away meanwhile.
    """
    try:
        if found.kind == "archive":
            return {path.name: _stamp(path.lstat()) for path in found.sources}
        return stamps_of(found.path, params)
    except FileNotFoundError as error:
        raise ChangedError(f"'{shown(Path(error.filename).name)}' went away") from None


def stamps_of(folder: Path, params: Params) -> dict[str, Stamp]:
    """Return the stamps of a folder's files, by path below it; see `look_at`."""
    stamps: dict[str, Stamp] = {}
    all_bytes = 0
    for path, status in _walk(folder):
        stamps[path] = _stamp(status)
        all_bytes += status.st_size
        if len(stamps) > params.max_files + 1:  # and the mark
            raise RefusedError([f"more than {params.max_files} files (intake.max_files)"])
        if status.st_size > params.max_file_mb * _MB:
            told = f"'{shown(path)}' has {status.st_size / _MB:.1f} MB"
            raise RefusedError([f"{told}, more than {params.max_file_mb:g} (intake.max_file_mb)"])
        if all_bytes > params.max_batch_mb * _MB:
            raise RefusedError([f"more than {params.max_batch_mb:g} MB (intake.max_batch_mb)"])
    return stamps


def stamp_of(found: Found) -> str:
    """Name this delivery for good: another one under the same name has another stamp."""
    try:
        status = (found.mark if found.kind == "folder" else found.path).lstat()
    except OSError:
        return ""
    return f"{status.st_ino}-{status.st_mtime_ns}"


def _suffix(name: str) -> str:
    ends = [end for end in SUFFIXES if name.lower().endswith(end) and len(name) > len(end)]
    return max(ends, key=len, default="")


def _walk(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield every entry below a folder that is no folder, with its status (links not followed)."""
    waiting = [("", 0)]
    while waiting:
        below, depth = waiting.pop()
        if depth > _MAX_DEPTH:
            raise RefusedError([f"folders within folders, more than {_MAX_DEPTH} deep"])
        try:
            with os.scandir(folder / below) as entries:
                for entry in entries:
                    path = f"{below}/{entry.name}" if below else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append((path, depth + 1))
                    else:
                        yield path, entry.stat(follow_symlinks=False)
        except PermissionError as error:
            raise RefusedError([f"'{shown(below)}' cannot be opened ({error.strerror})"]) from None


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def require_same(before: dict[str, Stamp], after: dict[str, Stamp]) -> None:
    """Raise ChangedError with what is new, gone or other where two looks differ."""
    new, gone = sorted(after.keys() - before.keys()), sorted(before.keys() - after.keys())
    other = sorted(path for path in before.keys() & after.keys() if before[path] != after[path])
    for words, paths in (("is new", new), ("is gone", gone), ("was written to", other)):
        if paths:
            raise ChangedError(f"'{shown(paths[0])}' {words} since it was looked at")
