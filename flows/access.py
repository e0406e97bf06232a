"""Access control for the local servers: one secret per project and the allowed host names.

Whoever reaches Prefect's API or MLflow's pages can run code or change what is recorded. A port of
127.0.0.1 is open to every account on the machine and, through a host name that resolves to it, to
web pages. The secret has the form `name:password`. It is kept in a file that only this account can
read, and passed on in environment variables, which other accounts cannot see, unlike a command
line.
"""

import base64
import hmac
import json
import os
import secrets
import stat
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tasks.core.errors import UserError
from tasks.core.files import write_text
from tasks.core.parallel.process import process_name

SECRET_FILE = ".prefect/auth-string"
SERVING = ".prefect/serving.json"  # process and address of the running Prefect server
SERVING_UI = ".prefect/serving-ui.json"  # the same for MLflow's pages
HOSTS_VARIABLE = "AFFECTGAP_ALLOWED_HOSTS"
SERVER_VARIABLE = "PREFECT_SERVER_API_AUTH_STRING"  # set by the operator instead of the file
USER = "affectgap"
_LOCAL_HOSTS = ("127.0.0.1", "localhost")
_OTHERS = 0o077
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]
_INTERNAL_SCOPES = ("lifespan",)
_POLICY_VIOLATION = 1008  # RFC 6455


def new_secret() -> str:
    """Return a random secret."""
    return f"{USER}:{secrets.token_urlsafe(32)}"


def server_secret(root: Path) -> str:
    """Return the secret of this project's long-running servers, created at the first call.

    A file that other accounts can read, or that another account wrote, is replaced.
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
    with suppress(FileExistsError):  # if two servers start together, the first one wins
        os.link(temporary, path)
    temporary.unlink()
    return _read_if_private(path)


def existing_server_secret(root: Path) -> str:
    """Return the secret of this project's long-running servers, or "" if there is none yet."""
    return os.environ.get(SERVER_VARIABLE) or _read_if_private(root / SECRET_FILE)


def allowed_hosts() -> list[str]:
    """Return the host names that servers answer to: the local ones and those of the variable.

    Raises UserError for a wildcard, which would let any web page in.
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
def announce_server(note: Path, url: str, own: bool) -> Iterator[None]:
    """Record this process's server; `own` means that it asks for this project's secret."""
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


class SecretGuard:
    """Passes on requests that carry the secret (HTTP Basic) and come from no foreign page.

    Once typed in, a browser sends the secret with requests from pages of any address, so a
    request's `Origin` must be one of the server's own host names.
    """

    def __init__(self, app: App, secret: str, hosts: Iterable[str]) -> None:
        self._app = app
        self._expected = b"Basic " + base64.b64encode(secret.encode("utf-8"))
        self._hosts = frozenset(hosts)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer with 401 or 403, or pass the request on."""
        if scope["type"] in _INTERNAL_SCOPES:
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if not hmac.compare_digest(headers.get(b"authorization", b""), self._expected):
            await _refuse(scope, send, 401, "unauthorized: `affectgap status --ui` shows how")
        elif not self._is_same_origin(headers.get(b"origin", b""), headers.get(b"host", b"")):
            await _refuse(scope, send, 403, "not from a page of another address")
        else:
            await self._app(scope, receive, send)

    def _is_same_origin(self, origin: bytes, host: bytes) -> bool:
        if not origin:
            return True
        address = urlsplit(origin.decode("latin-1"))
        return address.hostname in self._hosts and address.netloc == host.decode("latin-1")


async def _refuse(scope: Message, send: Send, status: int, text: str) -> None:
    if scope["type"] != "http":
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="affectgap"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": f"{text}\n".encode()})
