"""Keeps what holds images, names or ids from the machine's other accounts.

New files are made for this account alone (`restrict_umask`). What is there already, and what DVC or
git made with another umask, is closed at the folders that hold it (`close_folders`): DVC gives the
files of its cache mode 0444 whatever the umask. `data/inbox` is left as its operator set it, since
sites may deliver through a group. A folder with the setgid bit counts as shared with its group on
purpose and keeps its group's access.
"""

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

INBOX = "data/inbox"
SITE_CACHE = ".cache/dvc"  # as in .dvc/config: DVC unpickles what it finds there
_FOLDERS = (
    *(".cache", ".dvc", ".prefect", "mlruns", "models", "registry", "reports", "work"),
    *("study/results", "study/run_records", "study/tables"),
)
_OTHERS, _GROUP_AND_OTHERS = 0o007, 0o077


def restrict_umask() -> None:
    """Have this process and what it starts make files that no other account may read."""
    os.umask(os.umask(_GROUP_AND_OTHERS) | _GROUP_AND_OTHERS)


def close_folders(root: Path) -> list[tuple[Path, int]]:
    """Take other accounts' access to the project's private folders and files away.

    Parameters
    ----------
    root
        The project's folder.

    Returns
    -------
    list of tuple
        What was open and is closed now, each with its earlier mode. What belongs to another
        account stays as it is; see `open_to_others`.
    """
    closed = []
    for path, mode, target in open_to_others(root):
        with suppress(OSError):
            path.chmod(target)
            closed.append((path, mode))
    return closed


def open_to_others(root: Path) -> Iterator[tuple[Path, int, int]]:
    """Yield private paths that other accounts may use: path, mode, and what it should be."""
    for path in _private_paths(root):
        with suppress(OSError):
            mode = stat.S_IMODE(path.lstat().st_mode)
            if (denied := mode & _denied(mode)) and not path.is_symlink():
                yield path, mode, mode & ~denied
    data = root / "data"
    with suppress(OSError):
        mode = stat.S_IMODE(data.stat().st_mode)
        # Sites that may use the inbox pass through this folder; they cannot list it.
        passage = 0o011 if _mode(root / INBOX) & _GROUP_AND_OTHERS else 0
        if denied := mode & _denied(mode) & ~passage:
            yield data, mode, mode & ~denied


def prepare_site_cache(root: Path) -> Path:
    """Make the folder of DVC's site cache, for this account alone, and return it.

    DVC by itself would make it writable for everybody. What another account put there before is
    removed, since DVC would unpickle it.
    """
    folder = root / SITE_CACHE
    repositories = folder / "repo"
    if not (root / ".dvc").is_dir():
        return folder
    with suppress(OSError):  # a project of another account: DVC says what it cannot do
        repositories.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in (folder.parent, folder, repositories):
            if _mode(path) & _GROUP_AND_OTHERS:
                path.chmod(0o700)
        trusted = {0, os.geteuid(), root.stat().st_uid}
        for path in repositories.iterdir():
            if path.lstat().st_uid not in trusted:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
    return folder


def _private_paths(root: Path) -> Iterator[Path]:
    yield from (path for name in _FOLDERS if (path := root / name).is_dir())
    with suppress(OSError):
        yield from (path for path in sorted((root / "data").iterdir()) if path != root / INBOX)


def _denied(mode: int) -> int:
    return _OTHERS if mode & stat.S_ISGID else _GROUP_AND_OTHERS


def _mode(path: Path) -> int:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return 0
