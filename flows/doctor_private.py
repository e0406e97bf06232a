"""The doctor's look at what other accounts of the machine can read, or could make DVC execute."""

import getpass
import hashlib
import os
import shlex
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from flows.finding import Finding
from tasks.core.paths import Paths
from tasks.core.private import SITE_CACHE, close_folders, open_to_others

_SYSTEM_SITE_CACHES = (Path("/var/tmp/dvc"), Path("/Library/Caches/dvc"))  # DVC's own choices


def open_folders(paths: Paths) -> Iterator[Finding]:
    """Close what holds images, names or ids and is open to other accounts."""
    for path, mode in close_folders(paths.root):
        where = str(path.relative_to(paths.root))
        yield Finding(f"other accounts had access (mode {mode:o})", where, "closed", mended=True)
    for path, mode, _ in open_to_others(paths.root):
        where = str(path.relative_to(paths.root))
        remedy = f"it belongs to another account, which can close it: `chmod go-rwx {where}`"
        yield Finding(f"other accounts have access (mode {mode:o})", where, remedy, mended=False)


def readable_inbox(paths: Paths) -> Iterator[Finding]:
    """Report an inbox that every account may read; how sites deliver is the operator's choice."""
    try:
        mode = stat.S_IMODE(paths.inbox.stat().st_mode)
        way_in = paths.inbox.parent.stat().st_mode & stat.S_IXOTH
    except FileNotFoundError:
        return
    if mode & stat.S_IROTH and way_in:
        yield Finding(
            f"every account of this machine may list and read it (mode {mode:o})",
            str(paths.inbox.relative_to(paths.root)),
            "`chmod o-r data/inbox`; give sites a group, if they need access",
            mended=False,
        )


def site_caches_elsewhere(paths: Paths) -> Iterator[Finding]:
    """Report DVC's cache of this project in the system's place, and remove stray ones of ours."""
    for place in _SYSTEM_SITE_CACHES:
        folder = place / "repo" / _dvc_token(paths.root)
        if folder.is_dir() and not folder.is_symlink() and folder.stat().st_uid == os.geteuid():
            yield Finding(
                "an earlier DVC kept names of this project's files here, open to other accounts",
                str(folder),
                f"remove it: `rm -r {shlex.quote(str(folder))}`",
                mended=False,
            )
    # DVC takes the setting for relative to where it was called.
    for folder in sorted(paths.root.glob(f"*/{SITE_CACHE}/repo")):
        if folder.lstat().st_uid == os.geteuid():
            shutil.rmtree(folder.parent)
            where = str(folder.parent.relative_to(paths.root))
            told = "`dvc` was called in a subfolder and left its site cache"
            yield Finding(told, where, "removed; call `dvc` in the project's folder", mended=True)


def _dvc_token(root: Path) -> str:
    """Return the name that DVC 3 gives to a project in a site cache."""
    try:
        made_at = os.path.getmtime(root / ".dvc/tmp/btime")
    except OSError:
        made_at = None
    known = str((str(root), None, made_at, getpass.getuser(), 3, 0))
    return hashlib.md5(known.encode(), usedforsecurity=False).hexdigest()
