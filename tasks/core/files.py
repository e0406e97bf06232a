"""Files: atomic writing, digests, locks, and modes that keep other accounts out.

New files are made for this account alone (`restrict_umask`). What is there already, and what DVC or
git made with another umask, is closed at the folders that hold it (`close_folders`): DVC gives the
files of its cache mode 0444 whatever the umask. `data/inbox` is left as its operator set it, since
sites may deliver through a group. A folder with the setgid bit counts as shared with its group on
purpose and keeps its group's access.
"""

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from tasks.core.errors import BusyError

_CHUNK_BYTES = 1 << 20
INBOX = "data/inbox"
SITE_CACHE = ".cache/dvc"  # as in .dvc/config: DVC unpickles what it finds there
_FOLDERS = (
    *(".cache", ".dvc", ".prefect", "mlruns", "models", "registry", "reports", "work"),
    *("study/results", "study/run_records", "study/tables"),
)
_OTHERS, _GROUP_AND_OTHERS = 0o007, 0o077


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path in the same folder and move it into place when the block succeeds.

    The parent folder is made; the file and its folder are synced, so that a power cut leaves the
    old file or the new one. The temporary file keeps the suffix, which some writers look at.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically; bytes of a name in another encoding become escapes."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def sha256_of(path: Path) -> str:
    """Return a file's sha256 as 64 hex digits, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def alone(path: Path, busy: str) -> Iterator[None]:
    """Hold the lock file `path` (its folder is made); raises BusyError(busy) if another does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise BusyError(busy) from None
    try:
        yield
    finally:
        lock.release()


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
