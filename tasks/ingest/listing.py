"""Listing a folder that strangers filled: every entry becomes a file to read or a fault.

Nothing is passed over in silence: hidden files, links that lead out, pipes, names in other
encodings and folders that cannot be opened are entries with a reason.
"""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.ingest.label import Fault, shown
from tasks.ingest.name_encoding import encoding_of_names

_MAC_FOLDER = "__MACOSX"  # what macOS adds to zip archives: only `._*` files
# What Windows lays into folders that somebody looked at; in lower case.
_OF_WINDOWS = frozenset(["thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini"])
_MAX_DEPTH = 64  # folders within folders


@dataclass(frozen=True)
class Listing:
    """The entries of a folder, by path below it with forward slashes, in the paths' order."""

    files: tuple[str, ...]
    faults: dict[str, Fault]


def list_files(folder: Path, linked_from: Sequence[Path] = ()) -> Listing:
    """List all files below a folder.

    Parameters
    ----------
    folder
        The folder; it may itself be a link.
    linked_from
        Other folders that links may lead into, such as DVC's cache.

    Returns
    -------
    Listing
        Readable regular files, and the entries that are refused with reason `hidden`,
        `outside_link`, `linked_folder`, `broken_link`, `not_a_file`, `not_utf8_name` or
        `unreadable`. Names are kept as they are on disk (no Unicode normalisation).
    """
    allowed = [path.resolve() for path in (folder, *linked_from)]
    files: list[str] = []
    faults: dict[str, Fault] = {}
    for path, entry in _walk(folder, ""):
        fault = _fault(path, entry, allowed)
        if fault is None:
            files.append(path)
        else:
            faults[path] = fault
    return Listing(tuple(sorted(files)), dict(sorted(faults.items())))


def is_of_system(name: str) -> bool:
    """Whether an entry of this name is macOS's or Windows' own, and nothing that anybody gave."""
    return name in (_MAC_FOLDER, ".DS_Store") or name.lower() in _OF_WINDOWS


def _walk(folder: Path, below: str) -> Iterator[tuple[str, os.DirEntry[str] | OSError]]:
    if below.count("/") > _MAX_DEPTH:
        yield below.removesuffix("/"), OSError(errno.ELOOP, f"more than {_MAX_DEPTH} folders deep")
        return
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        yield below.removesuffix("/"), error
        return
    for entry in entries:
        path = below + entry.name
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(folder / entry.name, path + "/")
        else:
            yield path, entry


def _fault(path: str, entry: os.DirEntry[str] | OSError, allowed: list[Path]) -> Fault | None:
    if not _is_utf8(path):
        return Fault("not_utf8_name", f"rename it; its bytes are {shown(path)}{_in_korean(path)}")
    if any(part.startswith(".") or is_of_system(part) for part in path.split("/")):
        return Fault("hidden", "name or folder begins with a dot, or is macOS's or Windows' own")
    if isinstance(entry, OSError):
        return Fault("unreadable", entry.strerror or str(entry))
    return _link_fault(entry, allowed) if entry.is_symlink() else _kind_fault(entry)


def _in_korean(path: str) -> str:
    """Return how a name reads in the encoding of Korean Windows, and what renames it; or ""."""
    name = os.fsencode(path)
    if encoding_of_names([name]) != "cp949":
        return ""
    return f" ('{name.decode('cp949')}' in cp949; `convmv -f cp949 -t utf-8 -r --notest FOLDER`)"


def _link_fault(entry: os.DirEntry[str], allowed: list[Path]) -> Fault | None:
    target = Path(os.path.realpath(entry.path))
    if not target.exists():
        return Fault("broken_link", f"leads to {shown(target)}, which is not there")
    if not any(target.is_relative_to(folder) for folder in allowed):
        return Fault("outside_link", f"leads to {shown(target)}, outside the data set")
    if target.is_dir():
        return Fault("linked_folder", f"leads to {shown(target)}; put the folder itself here")
    return None if target.is_file() else Fault("not_a_file", f"leads to {shown(target)}")


def _kind_fault(entry: os.DirEntry[str]) -> Fault | None:
    try:
        mode = entry.stat(follow_symlinks=False).st_mode
    except OSError as error:
        return Fault("unreadable", error.strerror or str(error))
    return None if stat.S_ISREG(mode) else Fault("not_a_file", "a pipe, socket or device")


def _is_utf8(path: str) -> bool:
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
