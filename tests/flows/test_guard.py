"""A guarded server answers nobody without the secret, whatever the path, page or protocol."""

import base64

import pytest
from starlette.applications import Starlette
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from flows.access import SecretGuard

WS = "ws://localhost:5000/ws"
SECRET = "affectgap:pässword"
BASIC = {"Authorization": "Basic " + base64.b64encode(SECRET.encode()).decode()}


async def page(request):
    return PlainTextResponse("images of children")


async def socket(websocket):
    await websocket.accept()
    await websocket.send_text("images of children")


@pytest.fixture
def client():
    routes = [Route("/{path:path}", page, methods=["GET", "POST"]), WebSocketRoute("/ws", socket)]
    guard = SecretGuard(Starlette(routes=routes), SECRET, ["localhost"])
    app = TrustedHostMiddleware(guard, allowed_hosts=["localhost"])
    return TestClient(app, base_url="http://localhost:5000")


@pytest.mark.parametrize("path", ["/", "/health", "/api/x", "//health", "/static-files/../x"])
def test_every_path_asks_for_the_secret(client, path):
    refused = client.get(path)
    assert refused.status_code == 401 and "children" not in refused.text
    assert refused.headers["www-authenticate"].startswith("Basic ")
    assert client.get(path, headers=BASIC).status_code == 200


@pytest.mark.parametrize(
    "given", ["", "Basic", "Basic !!!", "Bearer x", "Basic YWZmZWN0Z2FwOg==", "Basic \x80"]
)
def test_another_secret_is_refused(client, given):
    assert client.get("/", headers={"Authorization": given.encode("latin-1")}).status_code == 401


def test_pages_of_other_addresses_cannot_use_a_browser_that_knows_the_secret(client):
    for origin in ("http://evil.example", "http://localhost:9", "null", "http://localhost"):
        refused = client.post("/", headers={**BASIC, "Origin": origin})
        assert refused.status_code == 403, origin
    own = {**BASIC, "Origin": "http://localhost:5000"}
    assert client.post("/", headers=own).status_code == 200
    rebound = client.get("/", headers={**BASIC, "Host": "evil.example:5000"})
    assert rebound.status_code == 400


def test_a_websocket_asks_for_it_too(client):
    with pytest.raises(WebSocketDisconnect), client.websocket_connect(WS) as opened:
        opened.receive_text()
    with client.websocket_connect(WS, headers=BASIC) as opened:
        assert opened.receive_text() == "images of children"
