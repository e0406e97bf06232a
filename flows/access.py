"""Who may talk to the servers that run here: one secret per project, and the names they answer to.

Prefect's API and MLflow's pages run code or change what is recorded for whoever reaches them, and a
port of 127.0.0.1 is reached by every account of the machine and, through a name that resolves to
it, by web pages. The secret is in a file for this account alone, travels in environment variables
(no other account sees them, unlike a command line) and has the form `name:password`.
"""

import json
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tasks.core.errors import UserError
from tasks.core.files import write_text
from tasks.core.process import process_name

SECRET_FILE = ".prefect/auth-string"
SERVING = ".prefect/serving.json"  # who serves Prefect here, and at which address
SERVING_UI = ".prefect/serving-ui.json"  # the same of MLflow's pages
HOSTS_VARIABLE = "AFFECTGAP_ALLOWED_HOSTS"
SERVER_VARIABLE = "PREFECT_SERVER_API_AUTH_STRING"  # the operator's own, in place of the file
USER = "affectgap"
_LOCAL_HOSTS = ("127.0.0.1", "localhost")
_OTHERS = 0o077


def new_secret() -> str:
    """Return a random secret."""
    return f"{USER}:{secrets.token_urlsafe(32)}"


def standing_secret(root: Path) -> str:
    """Return the secret of this project's standing servers, made at the first call.

    A file that other accounts could read, or that another account wrote, is replaced.

    Parameters
    ----------
    root
        The project's folder.
    """
    if given := os.environ.get(SERVER_VARIABLE):
        return given
    path = root / SECRET_FILE
    if known := _read_if_private(path):
        return known
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="ascii") as output:
        output.write(new_secret() + "\n")
    with suppress(FileExistsError):  # of two servers that start together the first one's counts
        os.link(temporary, path)
    temporary.unlink()
    return _read_if_private(path)


def known_secret(root: Path) -> str:
    """Return the secret of this project's standing servers, "" where there is none yet."""
    return os.environ.get(SERVER_VARIABLE) or _read_if_private(root / SECRET_FILE)


def allowed_hosts() -> list[str]:
    """Return the host names that servers answer to: this machine's own, and those of the variable.

    Raises
    ------
    UserError
        For a wildcard, which would let any web page in.
    """
    named = [name.strip() for name in os.environ.get(HOSTS_VARIABLE, "").split(",")]
    for name in named:
        if "*" in name or ":" in name or "/" in name:
            raise UserError(
                f"{HOSTS_VARIABLE}: {name!r} is no host name; give names without scheme, port or "
                "`*`, separated by commas"
            )
    return [*_LOCAL_HOSTS, *filter(None, named)]


@contextmanager
def noted(note: Path, url: str, own: bool) -> Iterator[None]:
    """Leave a note, for `status`, of this process's server; `own`: it asks for our secret."""
    content = {"process": process_name(os.getpid()), "url": url, "own": own}
    write_text(note, json.dumps(content) + "\n")
    try:
        yield
    finally:
        note.unlink(missing_ok=True)


def _read_if_private(path: Path) -> str:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return ""
    with os.fdopen(handle, encoding="ascii", errors="replace") as source:
        status = os.fstat(source.fileno())
        private = not stat.S_IMODE(status.st_mode) & _OTHERS and status.st_uid == os.geteuid()
        return source.read().strip() if private else ""
