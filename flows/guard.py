"""ASGI middleware: a server that asks for the project's secret before it does anything."""

import base64
import hmac
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_WITHOUT_A_CLIENT = ("lifespan",)
_REFUSED_WEBSOCKET = 1008  # RFC 6455: policy violation


class SecretGuard:
    """Lets requests through that carry the secret (HTTP Basic) and come from no foreign page.

    A browser sends the secret by itself once it has been typed in, for pages of any address that
    make it ask this server: so a request's `Origin` counts as well.

    Parameters
    ----------
    app
        What is guarded, whatever the path.
    secret
        `name:password`.
    hosts
        Names of this server, which its own pages come from.
    """

    def __init__(self, app: App, secret: str, hosts: Iterable[str]) -> None:
        self._app = app
        self._expected = b"Basic " + base64.b64encode(secret.encode("utf-8"))
        self._hosts = frozenset(hosts)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer 401 or 403, or hand the request on."""
        if scope["type"] in _WITHOUT_A_CLIENT:
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if not hmac.compare_digest(headers.get(b"authorization", b""), self._expected):
            await _refuse(scope, send, 401, "unauthorized: `affectgap status --ui` shows how")
        elif not self._is_own(headers.get(b"origin", b""), headers.get(b"host", b"")):
            await _refuse(scope, send, 403, "not from a page of another address")
        else:
            await self._app(scope, receive, send)

    def _is_own(self, origin: bytes, host: bytes) -> bool:
        if not origin:
            return True
        address = urlsplit(origin.decode("latin-1"))
        return address.hostname in self._hosts and address.netloc == host.decode("latin-1")


async def _refuse(scope: Message, send: Send, status: int, text: str) -> None:
    if scope["type"] != "http":
        await send({"type": "websocket.close", "code": _REFUSED_WEBSOCKET})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="affectgap"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": f"{text}\n".encode()})
