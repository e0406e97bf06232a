"""Atomic moves of batches: each is one rename, and can be repeated after a crash.

Files from archives and other file systems are first collected in a folder beside the target, which
is then renamed.

Replacement of links into DVC's cache (`cache.type symlink`) by copies of their targets.

DVC does not track what leaves data/raw: the next `dvc gc` removes it from the cache, which would
break the links.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from flows.intake.archives import Limits, unpack
from flows.intake.entries import DONE, BatchRejectedError, BatchStillChangingError, InboxEntry
from flows.intake.place_images import INCOMING, incoming, sync_folder
from flows.intake.rejection_notice import remove_reason
from flows.intake.settings import Params
from tasks.core.errors import DataError
from tasks.core.labels import EMOTION_WORDS
from tasks.core.text import clean
from tasks.ingest.dataset_reader import READY
from tasks.ingest.label import printable_path
from tasks.ingest.list_files import is_system_file

_RATIO = 100.0  # maximum compression of an archive; images hardly compress
_MB = 1_000_000


class Opened(NamedTuple):
    """A folder with a batch's files, and notes on how an archive was read."""

    folder: Path
    notes: tuple[str, ...]


@contextmanager
def opened(entry: InboxEntry, raw: Path, params: Params) -> Iterator[Opened]:
    """Yield a folder with a batch's files that can be renamed to a path below `raw`.

    This is the batch's own folder if it is on the same file system. Otherwise it is a temporary
    folder, which is removed at the end unless it was renamed.

    Raises
    ------
    BatchRejectedError
        For an archive that is damaged or unsafe, or exceeds a limit of `params`.
    """
    raw.mkdir(parents=True, exist_ok=True)
    if entry.kind == "folder" and _same_disk(entry.path, raw):
        yield Opened(entry.path, ())
        return
    notes: tuple[str, ...] = ()
    with incoming(raw / "batch") as folder:
        if entry.kind == "folder":
            _copy_tree(entry.path, folder, _reject_pipe)
        else:
            notes = _unpack(entry, folder, params)
            shutil.copyfile(entry.mark, folder / READY)
            remove_reason(folder)  # in an archive of a quarantined folder
        yield Opened(folder, notes)


def move(source: Path, target: Path) -> None:
    """Rename a folder durably to a path that is free."""
    target.parent.mkdir(parents=True, exist_ok=True)
    os.sync()  # the sender's last writes may not be on the disk yet
    os.rename(source, target)
    for folder in {source.parent, target.parent}:
        sync_folder(folder)


def remove_sources(sources: Sequence[Path]) -> None:
    """Remove copied batches from the inbox; folders are hidden first, so never seen incomplete."""
    for source in reversed(sources):  # removes an archive's `_READY` before the archive
        if source.is_dir() and not source.is_symlink():
            hidden = source.with_name(f"{DONE}{source.name}")
            shutil.rmtree(hidden, ignore_errors=True)
            os.rename(source, hidden)
            shutil.rmtree(hidden, ignore_errors=True)
        else:
            source.unlink(missing_ok=True)


def quarantine(sources: Sequence[Path], place: Path) -> None:
    """Move a batch to the folder `place` in the quarantine; can be repeated after a crash.

    `sources` is a batch's folder, or the files that belong to it. Without sources, whatever an
    earlier call collected becomes the folder, which may be empty.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.exists():
        staged = staging_folder(place)
        _collect(sources, staged)
        staged.mkdir(exist_ok=True)
        move(staged, place)


def staging_folder(place: Path) -> Path:
    """Return the folder in which a batch is collected before it is renamed to `place`."""
    return place.with_name(f"{INCOMING}{place.name}")


def remove_leftovers(inbox: Path) -> list[Path]:
    """Remove batches that were copied but not yet removed; return them."""
    leftovers = sorted(inbox.glob(f"{DONE}*"))
    for path in leftovers:
        shutil.rmtree(path, ignore_errors=True)
    return leftovers


def _collect(sources: Sequence[Path], staged: Path) -> None:
    """Move a batch's files into `staged`, or its folder to `staged`."""
    if not sources:
        return  # moved already
    first = sources[0]
    if not (os.path.lexists(first) or staged.exists()):
        raise BatchStillChangingError(f"'{printable_path(first.name)}' disappeared")
    if len(sources) == 1 and first.is_dir() and not first.is_symlink():
        if _same_disk(first, staged.parent):
            if not staged.exists():
                os.rename(first, staged)
            return
        if first.exists():
            shutil.rmtree(staged, ignore_errors=True)
            _copy_tree(first, staged, lambda source: None)
            remove_sources(sources)
        return
    staged.mkdir(exist_ok=True)
    for source in reversed(sources):  # the archive last, since its absence marks completion
        if os.path.lexists(source):
            shutil.move(source, staged / source.name)


def _unpack(entry: InboxEntry, folder: Path, params: Params) -> tuple[str, ...]:
    limits = Limits(
        files=params.max_files,
        file_bytes=int(params.max_file_mb * _MB),
        all_bytes=int(params.max_batch_mb * _MB),
        ratio=_RATIO,
    )
    try:
        notes = unpack(entry.path, folder, limits).notes
    except DataError as error:
        raise BatchRejectedError([str(error).replace(f"{entry.path.parent}/", "")]) from None
    _strip_root(folder)
    if (folder / READY).is_dir():
        raise BatchRejectedError([f"it contains a folder named {READY}"])
    return notes


def _strip_root(folder: Path) -> None:
    """Replace a folder by its only entry if that is a folder, unless its name is an emotion."""
    entries = [entry for entry in folder.iterdir() if not is_system_file(entry.name)]
    if (
        len(entries) != 1
        or not entries[0].is_dir()
        or clean(entries[0].name).casefold() in EMOTION_WORDS
    ):
        return
    inner = folder.with_name(f"{folder.name}-{os.getpid()}")
    os.rename(entries[0], inner)
    shutil.rmtree(folder)
    os.rename(inner, folder)


class _CopyError(Exception):
    """Carries an OSError through `copytree`, which would otherwise continue."""

    def __init__(self, cause: OSError) -> None:
        self.cause = cause


def _copy_tree(source: Path, target: Path, on_pipe: Callable[[Path], None]) -> None:
    """Copy a folder, links as links; pipes and devices, which never end, are not copied."""

    def copy(original: str, duplicate: str) -> None:
        if not os.path.isfile(original):
            on_pipe(Path(original))
            return
        try:
            shutil.copy2(original, duplicate)
        except OSError as error:
            raise _CopyError(error) from None

    try:
        shutil.copytree(source, target, symlinks=True, copy_function=copy, dirs_exist_ok=True)
    except _CopyError as error:
        raise error.cause from None


def _reject_pipe(path: Path) -> None:
    raise BatchRejectedError([f"'{printable_path(path.name)}': is a pipe, socket or device"])


def _same_disk(path: Path, other: Path) -> bool:
    return path.lstat().st_dev == other.stat().st_dev


def copy_linked(folder: Path, linked_from: Sequence[Path]) -> None:
    """Replace every link below a folder into one of the folders `linked_from` by a copy.

    Each link is replaced by one rename, so that the function can be repeated after a crash. The
    temporary copy always has the same name, so that the next call overwrites it.
    """
    copy = folder.with_name(f"{INCOMING}{folder.name}.copy")
    for link in _links_into(folder, [target.resolve() for target in linked_from]):
        shutil.copyfile(link, copy)
        with copy.open("rb") as handle:
            os.fsync(handle.fileno())  # a power failure must not lose both link and content
        os.replace(copy, link)
    copy.unlink(missing_ok=True)


def _links_into(folder: Path, targets: Sequence[Path]) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        for path in (Path(parent, name) for name in names):
            if path.is_symlink() and path.is_file():
                resolved = path.resolve()
                if any(resolved.is_relative_to(target) for target in targets):
                    yield path
