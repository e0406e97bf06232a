"""Files: atomic writing, digests, locks, and modes that keep other accounts out.

New files are readable for this account only (`restrict_umask`). Older files, and those that DVC or
git write with another umask, are protected by the modes of their folders (`close_folders`): DVC
gives the files of its cache mode 0444 whatever the umask. `data/inbox` keeps the mode that its
operator set, since sites may deliver through a group. A folder with the setgid bit is shared with
its group on purpose and keeps the group's access.
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
    """Yield a temporary path in the same folder, and rename it to `path` if the block succeeds.

    Creates the parent folder. The file and its folder are synced, so that a power cut leaves the
    old file or the new one. The temporary file has the same suffix, which some writers depend on.
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
    """Write UTF-8 text atomically; undecodable bytes of file names become escapes."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def sha256_of(path: Path) -> str:
    """Return a file's sha256 as 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def alone(path: Path, busy: str) -> Iterator[None]:
    """Hold the lock file `path`; raises BusyError(busy) if another process holds it."""
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
    """Set the umask of this process and its children so that other accounts cannot read files."""
    os.umask(os.umask(_GROUP_AND_OTHERS) | _GROUP_AND_OTHERS)


def close_folders(root: Path) -> list[tuple[Path, int]]:
    """Remove other accounts' access to the project's private folders and files.

    Returns the changed paths with their former modes. Paths that belong to another account stay as
    they are; see `open_to_others`.
    """
    closed = []
    for path, mode, target in open_to_others(root):
        with suppress(OSError):
            path.chmod(target)
            closed.append((path, mode))
    return closed


def open_to_others(root: Path) -> Iterator[tuple[Path, int, int]]:
    """Yield private paths that other accounts can access: path, mode, and the mode to set."""
    for path in _private_paths(root):
        with suppress(OSError):
            mode = stat.S_IMODE(path.lstat().st_mode)
            if (denied := mode & _denied(mode)) and not path.is_symlink():
                yield path, mode, mode & ~denied
    data = root / "data"
    with suppress(OSError):
        mode = stat.S_IMODE(data.stat().st_mode)
        # Sites with access to the inbox may traverse this folder but not list it.
        passage = 0o011 if _mode(root / INBOX) & _GROUP_AND_OTHERS else 0
        if denied := mode & _denied(mode) & ~passage:
            yield data, mode, mode & ~denied


def prepare_site_cache(root: Path) -> Path:
    """Create the folder of DVC's site cache, private to this account, and return it.

    DVC itself would make it writable for everybody. Files of other accounts in it are deleted,
    since DVC would unpickle them.
    """
    folder = root / SITE_CACHE
    repositories = folder / "repo"
    if not (root / ".dvc").is_dir():
        return folder
    with suppress(OSError):  # in a project of another account DVC reports the error itself
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
