"""Moving batches: each move is one rename, and can be begun again after a crash.

Between file systems, and out of an archive, the files are first put into a folder beside the
target, which the one rename then makes the batch.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tasks.core.errors import DataError
from tasks.core.labels import EMOTION_WORDS
from tasks.core.text import clean
from tasks.ingest.archives import Limits, unpack
from tasks.ingest.inbox.faults import ChangedError, RefusedError
from tasks.ingest.inbox.found import DONE, Found
from tasks.ingest.inbox.reasons import remove_reason
from tasks.ingest.inbox.settings import Params
from tasks.ingest.intake import INCOMING
from tasks.ingest.label import shown
from tasks.ingest.listing import is_of_system
from tasks.ingest.sources import READY

_RATIO = 100.0  # bytes out of an archive a byte of it; pictures hardly pack at all
_MB = 1_000_000


class Opened(NamedTuple):
    """A folder with a batch's files, and what there is to say of how they came out."""

    folder: Path
    notes: tuple[str, ...]


@contextmanager
def opened(found: Found, raw: Path, params: Params) -> Iterator[Opened]:
    """Give a folder with a batch's files, from which one rename leads below `raw`.

    Parameters
    ----------
    found
        A folder or an archive.
    raw
        The folder data/raw.
    params
        The limits.

    Yields
    ------
    Opened
        The batch's own folder where it lies on the same file system; else a folder beside the data
        sets, which is removed at the end unless it was renamed away.

    Raises
    ------
    RefusedError
        For an archive that is damaged, leads out of its folder, or is beyond the limits.
    """
    raw.mkdir(parents=True, exist_ok=True)
    if found.kind == "folder" and _same_disk(found.path, raw):
        yield Opened(found.path, ())
        return
    notes: tuple[str, ...] = ()
    folder = raw / f"{INCOMING}batch-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)  # of a process that had this number before
    try:
        if found.kind == "folder":
            _copy_tree(found.path, folder, _refuse_pipe)
        else:
            folder.mkdir()
            notes = _unpack(found, folder, params)
            shutil.copyfile(found.mark, folder / READY)
            remove_reason(folder)  # where a person packed what came out of the quarantine
        yield Opened(folder, notes)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def move(source: Path, target: Path) -> None:
    """Rename a folder to a place that is free; safe against a loss of power from then on."""
    target.parent.mkdir(parents=True, exist_ok=True)
    os.sync()  # what the sender wrote last may not be on the disk yet
    os.rename(source, target)
    for folder in {source.parent, target.parent}:
        _sync(folder)


def remove_sources(sources: Sequence[Path]) -> None:
    """Take what was copied out of the inbox: hidden by a rename first, so never seen half."""
    for source in reversed(sources):  # an archive's mark goes before it
        if source.is_dir() and not source.is_symlink():
            hidden = source.with_name(f"{DONE}{source.name}")
            shutil.rmtree(hidden, ignore_errors=True)
            os.rename(source, hidden)
            shutil.rmtree(hidden, ignore_errors=True)
        else:
            source.unlink(missing_ok=True)


def quarantine(sources: Sequence[Path], place: Path) -> None:
    """Move a batch to quarantine; may be called again at any step.

    Parameters
    ----------
    sources
        A batch's folder alone, or the files that belong to it; empty where all were moved before,
        or none is there: then the folder is empty.
    place
        Its folder in the quarantine.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.exists():
        staged = staged_for(place)
        _gather(sources, staged)
        staged.mkdir(exist_ok=True)
        move(staged, place)


def staged_for(place: Path) -> Path:
    """Return the folder where a batch is put together before it becomes `place`."""
    return place.with_name(f"{INCOMING}{place.name}")


def remove_leftovers(inbox: Path) -> list[Path]:
    """Remove what was taken in by copying and not removed yet; return what was removed."""
    leftovers = sorted(inbox.glob(f"{DONE}*"))
    for path in leftovers:
        shutil.rmtree(path, ignore_errors=True)
    return leftovers


def _gather(sources: Sequence[Path], staged: Path) -> None:
    """Put a batch's files below `staged`, or make its one folder `staged`."""
    if not sources:
        return  # they are there already
    first = sources[0]
    if not (os.path.lexists(first) or staged.exists()):
        raise ChangedError(f"'{shown(first.name)}' went away")
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
    for source in reversed(sources):  # an archive last: as long as it is there, it is not done
        if os.path.lexists(source):
            shutil.move(source, staged / source.name)


def _unpack(found: Found, folder: Path, params: Params) -> tuple[str, ...]:
    limits = Limits(
        files=params.max_files,
        file_bytes=int(params.max_file_mb * _MB),
        all_bytes=int(params.max_batch_mb * _MB),
        ratio=_RATIO,
    )
    try:
        notes = unpack(found.path, folder, limits).notes
    except DataError as error:
        raise RefusedError([str(error).replace(f"{found.path.parent}/", "")]) from None
    _lift(folder)
    if (folder / READY).is_dir():
        raise RefusedError([f"it holds a folder of the name {READY}"])
    return notes


def _lift(folder: Path) -> None:
    """Where an archive holds one folder and nothing beside it, that folder is the batch.

    A folder whose name is an emotion is a class, and stays.
    """
    entries = [entry for entry in folder.iterdir() if not is_of_system(entry.name)]
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
    """Carries what went wrong through `copytree`, which would go on with the other files."""

    def __init__(self, cause: OSError) -> None:
        self.cause = cause


def _copy_tree(source: Path, target: Path, on_pipe: Callable[[Path], None]) -> None:
    """Copy a folder, links as links; a pipe or device, which has no end, is left behind."""

    def copy(one: str, other: str) -> None:
        if not os.path.isfile(one):
            on_pipe(Path(one))
            return
        try:
            shutil.copy2(one, other)
        except OSError as error:
            raise _CopyError(error) from None

    try:
        shutil.copytree(source, target, symlinks=True, copy_function=copy)
    except _CopyError as error:
        raise error.cause from None


def _refuse_pipe(path: Path) -> None:
    raise RefusedError([f"'{shown(path.name)}': is a pipe, socket or device"])


def _same_disk(path: Path, other: Path) -> bool:
    return path.lstat().st_dev == other.stat().st_dev


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
