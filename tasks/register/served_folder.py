"""Images given as paths: read below one folder, and never outside it.

Whatever cannot be read gets the same message, so that an answer does not tell which files exist.
"""

import os
from pathlib import Path, PurePosixPath

from tasks.core.images import BadImageError, read_descriptor

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe would else be waited for


def read_below(folder: Path, given: str, max_pixels: int) -> bytes:
    """Read a file below a folder.

    Parameters
    ----------
    folder
        The folder, resolved.
    given
        A path in it, or an absolute one that leads into it. Links that stay inside are followed.
    max_pixels
        A file with more bytes than that many pixels can need is not read.

    Raises
    ------
    BadImageError
        With reason `unreadable`, in the same words whether the file is missing, is no regular
        file, is too large or lies elsewhere.
    """
    try:
        return _read(folder, PurePosixPath(given), max_pixels)
    except (BadImageError, OSError, ValueError):
        message = "no image file of that path in the folder that is served"
        raise BadImageError("unreadable", message) from None


def _read(folder: Path, path: PurePosixPath, max_pixels: int) -> bytes:
    if path.is_absolute():
        path = path.relative_to(folder)  # by its words: nothing elsewhere is looked at
    if ".." in path.parts:
        raise ValueError("leads out of the folder")
    inside = Path(os.path.realpath(folder / path)).relative_to(folder)
    # Step by step, so that a link that is put in place after the path was resolved is not followed.
    opened = [os.open(folder, _DIRECTORY)]
    try:
        for name in inside.parts[:-1]:
            opened.append(os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=opened[-1]))
        file = os.open(inside.name, _FILE, dir_fd=opened[-1])
    finally:
        for descriptor in opened:
            os.close(descriptor)
    return read_descriptor(file, max_pixels)
