"""ASGI middleware that checks requests to MLflow's scoring server before MLflow reads them.

MLflow reads request bodies of any size, decodes CSV and Parquet as well as JSON, answers under any
Host (so that a web page can reach it by DNS rebinding) and serves interactive documentation. The
model's `predict` comes too late to prevent that. So when MLflow's server loads the model, the
guard is wrapped around the server's application.
"""

import asyncio
import contextlib
import ipaddress
import json
import sys
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from types import ModuleType
from typing import Any

from tasks.register.serve_settings import HOSTS, MAX_BODY_MB, ServeSettings, usable_cores

_SERVER = "mlflow.pyfunc.scoring_server.app"  # the module that uvicorn imports for its `app`
_ASKING = "/invocations"
_ENDPOINTS = {("POST", _ASKING)} | {
    (method, path) for method in ("GET", "HEAD") for path in ("/ping", "/health", "/version")
}
_BODY_TIMEOUT_S = 30  # slower clients must not block others
_DRAINED_BODIES = 4  # a rejected body is read and discarded up to this many times the limit
_VALUES_PER_ROW = 8  # JSON values: enough for an index and a few unused columns
_DEPTH = 6
_SMALL_BODY_BYTES = 1 << 20  # larger bodies must be ASCII, with one byte per character

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class RefusedError(Exception):
    """A rejected request, with HTTP status and message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class RequestGuard:
    """ASGI middleware that passes on only requests within the limits.

    Only a few bodies are read concurrently, since decoding holds several copies in memory; the
    other requests wait unread.
    """

    def __init__(self, app: App, settings: ServeSettings) -> None:
        self._app = app
        self._settings = settings
        self._slots = asyncio.Semaphore(2 * usable_cores())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer rejected requests, and pass on all others."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # a web socket: the server closes it
        body = _Body(receive)
        try:
            self._check_head(scope)
            if scope["path"] == _ASKING:
                async with self._slots:
                    await self._check_body(body)
                    await self._app(scope, body.receive_again, send)
            else:
                await self._app(scope, receive, send)
        except RefusedError as refusal:
            await body.drain(_DRAINED_BODIES * self._settings.max_body_bytes)
            await _answer(send, refusal.status, str(refusal))

    def _check_head(self, scope: Scope) -> None:
        """Raise for an untrusted Host, unknown path, wrong content type or declared size."""
        headers = [(name.lower(), value.decode("latin-1")) for name, value in scope["headers"]]
        hosts = [value for name, value in headers if name == b"host"]
        if len(hosts) != 1 or not self._is_trusted(hosts[0]):
            raise RefusedError(400, f"Host is not served here; {HOSTS} names the hosts that are")
        if (scope["method"], scope["path"]) not in _ENDPOINTS:
            raise RefusedError(404, "known are POST /invocations and GET /ping, /health, /version")
        if scope["path"] != _ASKING:
            return
        types = [
            value.partition(";")[0].strip() for name, value in headers if name == b"content-type"
        ]
        if types != ["application/json"]:
            raise RefusedError(415, "Content-Type must be application/json")
        lengths = [int(value) for name, value in headers if name == b"content-length"]
        if max(lengths, default=0) > self._settings.max_body_bytes:
            raise self._too_large()

    def _is_trusted(self, host: str) -> bool:
        name = host.strip().lower()
        name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name == "localhost" or bool(self._settings.hosts & {name, "*"})
        return True  # a web page that rebinds its own name sends that name

    def _too_large(self) -> RefusedError:
        limit = self._settings.max_body_bytes >> 20
        return RefusedError(
            413, f"the request is larger than {limit} MB; {MAX_BODY_MB} is the limit"
        )

    async def _check_body(self, body: "_Body") -> None:
        """Read the body; raise if it is late, too large or not safe to decode."""
        try:
            async with asyncio.timeout(_BODY_TIMEOUT_S):
                if not await body.read(self._settings.max_body_bytes):
                    raise self._too_large()
        except TimeoutError:
            raise RefusedError(408, f"the request did not arrive in {_BODY_TIMEOUT_S} s") from None
        fault = await asyncio.to_thread(fault_of_body, body.content, self._settings.max_rows)
        if fault:
            raise RefusedError(400, fault)


class _Body:
    """A request's body, which is read here and then replayed for MLflow."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._incomplete = True
        self._replayed = False
        self.content = b""

    async def read(self, max_bytes: int) -> bool:
        """Read everything; False, with the rest unread, if that is more than `max_bytes`."""
        parts, n_bytes = [], 0
        while self._incomplete and n_bytes <= max_bytes:
            parts.append(await self._next())
            n_bytes += len(parts[-1])
        if n_bytes <= max_bytes:
            self.content = b"".join(parts)
        return n_bytes <= max_bytes

    async def drain(self, max_bytes: int) -> None:
        """Read and discard the rest, since a client that is still sending reads no answer."""
        n_bytes = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_BODY_TIMEOUT_S):
                while self._incomplete and n_bytes < max_bytes:
                    n_bytes += len(await self._next())

    async def receive_again(self) -> MutableMapping[str, Any]:
        """Replay the body, then pass on further messages: ASGI's `receive` for MLflow."""
        if self._replayed:
            return await self._receive()
        self._replayed = True
        return {"type": "http.request", "body": self.content, "more_body": False}

    async def _next(self) -> bytes:
        message = await self._receive()
        self._incomplete = message.get("more_body", False)  # absent if the client disconnected
        part: bytes = message.get("body", b"")
        return part


def fault_of_body(body: bytes, max_rows: int) -> str:
    """Return the fault of a JSON body; "" if MLflow may decode it.

    Memory is bounded before anything is decoded: the number of values by counting separators,
    which base64 does not contain, and the width of characters in large bodies.
    """
    if len(body) > _SMALL_BODY_BYTES and not (body.isascii() and b"\\u" not in body):
        return "a request above 1 MB must be ASCII: images as base64"
    n_values = body.count(b",") + body.count(b"[") + body.count(b"{")
    if n_values > _VALUES_PER_ROW * max_rows + _DEPTH:
        return f"the request holds more than {max_rows} images, or much that is no image"
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return "the body is not valid JSON"
    if not isinstance(content, dict):
        return 'the body must be a JSON object, such as {"dataframe_records": [{"image": …}]}'
    if max(_depths(content)) > _DEPTH:
        return f"the body's JSON is nested more than {_DEPTH} deep"
    return ""


def _depths(content: object) -> Iterator[int]:
    waiting = [(content, 1)]
    while waiting:
        value, depth = waiting.pop()
        yield depth
        if isinstance(value, dict | list):
            children = value.values() if isinstance(value, dict) else value
            waiting += [(child, depth + 1) for child in children]


def guard_scoring_server(settings: ServeSettings) -> bool:
    """Wrap MLflow's server in the guard; return False if no scoring server is being started.

    uvicorn takes the attribute `app` of MLflow's module, which loads the model while it is itself
    being imported. The module's class is replaced by one whose `app` is the guarded application.
    """
    module = sys.modules.get(_SERVER)
    if module is None or "app" in vars(module):
        return False
    guards: list[RequestGuard] = []

    class GuardedServer(ModuleType):
        @property
        def app(self) -> RequestGuard:
            if not guards:
                guards.append(RequestGuard(vars(self)["app"], settings))
            return guards[0]

    module.__class__ = GuardedServer
    return True


async def _answer(send: Send, status: int, message: str) -> None:
    """Send an error in MLflow's format."""
    content = json.dumps({"error_code": "BAD_REQUEST", "message": message}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
