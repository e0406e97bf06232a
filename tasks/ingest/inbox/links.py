"""Links into DVC's cache (`cache.type symlink`), replaced by the files that they lead to.

What leaves data/raw is no longer DVC's: the next `dvc gc` removes it from the cache, and a link
would lead nowhere.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from tasks.ingest.intake import INCOMING


def copy_linked(folder: Path, linked_from: Sequence[Path]) -> None:
    """Make every link below a folder that leads into one of these folders a file of its own.

    Each is replaced by one rename, so that killed in between the same call goes on. The copy is
    made beside the folder, always under one name: what a killed call left is written over.

    Parameters
    ----------
    folder
        The folder; nothing is done where it is not there.
    linked_from
        Where the links lead: DVC's cache.
    """
    copy = folder.with_name(f"{INCOMING}{folder.name}.copy")
    for link in _links_into(folder, [place.resolve() for place in linked_from]):
        shutil.copyfile(link, copy)
        with copy.open("rb") as handle:
            os.fsync(handle.fileno())  # else a loss of power may leave neither link nor content
        os.replace(copy, link)
    copy.unlink(missing_ok=True)


def _links_into(folder: Path, places: Sequence[Path]) -> Iterator[Path]:
    for where, _, names in os.walk(folder):
        for path in (Path(where, name) for name in names):
            if path.is_symlink() and path.is_file():
                target = path.resolve()
                if any(target.is_relative_to(place) for place in places):
                    yield path
