"""Listing of an untrusted folder: every entry is either a readable file or a fault.

Hidden files, links out of the folder, pipes, names that are not UTF-8 and folders that cannot be
opened are reported with a reason.
"""

import errno
import os
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.ingest.label import Fault, printable_path

_UTF8, _KOREAN, _DOS = "utf-8", "cp949", "cp437"
_MIN_COMMON_SHARE = 0.9  # of Hangul syllables that are among the 2,350 common ones of KS X 1001
_MAC_FOLDER = "__MACOSX"  # `._*` files that macOS adds to zip archives

# Files, in lower case, that Windows creates in folders when they are viewed.
_WINDOWS_FILES = frozenset(["thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini"])
_MAX_DEPTH = 64  # of nested folders


def encoding_of_names(names: Sequence[bytes]) -> str | None:
    """Return the most likely encoding of all of an archive's undeclared non-ASCII names.

    Returns
    -------
    str or None
        `utf-8` (macOS); `cp949` (Korean Windows) if all names are then Korean; `cp437` (zip's
        default, also that of Western versions of Windows) if all letters are then Latin; else None.
    """
    if _decoded(names, _UTF8) is not None:
        return _UTF8
    korean = _decoded(names, _KOREAN)
    if korean is not None and all(map(_is_korean, korean)) and _is_common(korean):
        return _KOREAN
    western = _decoded(names, _DOS)
    return _DOS if western is not None and all(map(_is_latin, western)) else None


def _decoded(names: Sequence[bytes], encoding: str) -> list[str] | None:
    try:
        return [name.decode(encoding) for name in names]
    except UnicodeDecodeError:
        return None


def _is_korean(name: str) -> bool:
    """Return whether all non-ASCII characters are Hangul or punctuation, with some Hangul."""
    other = [letter for letter in name if not letter.isascii()]
    return any(map(_is_hangul, other)) and all(
        _is_hangul(letter) or unicodedata.category(letter)[0] in "PSZ" for letter in other
    )


def _is_hangul(letter: str) -> bool:
    return "\uac00" <= letter <= "\ud7a3" or "\u3131" <= letter <= "\u318e"


def _is_common(names: Sequence[str]) -> bool:
    """Return whether nearly all syllables are common; in other encodings, most would be rare."""
    syllables = [letter for name in names for letter in name if _is_hangul(letter)]
    common = sum(len(letter.encode("euc_kr", "ignore")) == 2 for letter in syllables)
    return common >= _MIN_COMMON_SHARE * len(syllables)


def _is_latin(name: str) -> bool:
    return all(
        letter.isascii() or unicodedata.name(letter, "").startswith("LATIN ") for letter in name
    )


@dataclass(frozen=True)
class Listing:
    """The entries of a folder, by relative path with forward slashes, sorted."""

    files: tuple[str, ...]
    faults: dict[str, Fault]


def list_files(folder: Path, linked_from: Sequence[Path] = ()) -> Listing:
    """List all files below a folder.

    Links may lead into the folder and into the folders `linked_from`, such as DVC's cache. Faults
    have the reason `hidden`, `outside_link`, `linked_folder`, `broken_link`, `not_a_file`,
    `not_utf8_name` or `unreadable`. Names are not normalized.
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


def is_system_file(name: str) -> bool:
    """Return whether macOS or Windows creates entries of this name."""
    return name in (_MAC_FOLDER, ".DS_Store") or name.lower() in _WINDOWS_FILES


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
        return Fault(
            "not_utf8_name", f"rename it; its bytes are {printable_path(path)}{_in_korean(path)}"
        )
    if any(part.startswith(".") or is_system_file(part) for part in path.split("/")):
        return Fault("hidden", "begins with a dot, or was created by macOS or Windows")
    if isinstance(entry, OSError):
        return Fault("unreadable", entry.strerror or str(entry))
    return _link_fault(entry, allowed) if entry.is_symlink() else _kind_fault(entry)


def _in_korean(path: str) -> str:
    """Return a Korean reading of a name and the command to rename it, or ""."""
    name = os.fsencode(path)
    if encoding_of_names([name]) != "cp949":
        return ""
    return f" ('{name.decode('cp949')}' in cp949; `convmv -f cp949 -t utf-8 -r --notest FOLDER`)"


def _link_fault(entry: os.DirEntry[str], allowed: list[Path]) -> Fault | None:
    target = Path(os.path.realpath(entry.path))
    if not target.exists():
        return Fault("broken_link", f"leads to {printable_path(target)}, which does not exist")
    if not any(target.is_relative_to(folder) for folder in allowed):
        return Fault("outside_link", f"leads to {printable_path(target)}, outside the data set")
    if target.is_dir():
        return Fault(
            "linked_folder", f"leads to {printable_path(target)}; put the folder itself here"
        )
    return None if target.is_file() else Fault("not_a_file", f"leads to {printable_path(target)}")


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
