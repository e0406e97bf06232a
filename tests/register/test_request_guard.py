"""Requests that the guard rejects: foreign Hosts, other formats, large or deep bodies."""

import asyncio
import base64
import json
import os
import sys

import httpx
import pytest
import torch
from registered_project import draw_faces

from tasks.core.tracking.mlflow_runs import open_store
from tasks.register import registry
from tasks.register.request_guard import RequestGuard, fault_of_body
from tasks.register.serve_settings import ServeSettings

JSON = {"content-type": "application/json"}
SETTINGS = ServeSettings(hosts=frozenset({"faces.example"}), max_body_bytes=1 << 20, max_rows=10)


class Server:
    """A fake of MLflow's application: counts requests, and answers with the body."""

    def __init__(self):
        self.n_requests = 0

    async def __call__(self, scope, receive, send):
        self.n_requests += 1
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})


def send(app, method="POST", path="/invocations", content=b"{}", headers=JSON, host="127.0.0.1"):
    async def one():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            headed = {**headers, "host": host}
            return await client.request(method, path, content=content, headers=headed)

    return asyncio.run(one())


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def guard(server):
    return RequestGuard(server, SETTINGS)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:5001", "localhost", "LOCALHOST:80", "[::1]:5001", "10.0.0.7", "faces.example:1"],
)
def test_requests_within_the_limits_arrive_unchanged(guard, host):
    content = b'{"inputs": {"image": ["YQ=="]}}'
    answer = send(guard, content=content, host=host)
    assert (answer.status_code, answer.content) == (200, content)


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "faces.example.x"],
)
def test_a_foreign_host_is_refused_at_every_address(guard, server, host):
    for method, path in (("POST", "/invocations"), ("GET", "/ping"), ("GET", "/docs")):
        answer = send(guard, method, path, host=host)
        assert answer.status_code == 400 and "AFFECTGAP_SERVE_HOSTS" in answer.json()["message"]
    assert server.n_requests == 0


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/docs"),
        ("GET", "/redoc"),
        ("GET", "/openapi.json"),
        ("GET", "/docs/oauth2-redirect"),
        ("GET", "/invocations"),
        ("OPTIONS", "/invocations"),
        ("POST", "/ping"),
        ("GET", "/"),
    ],
)
def test_only_the_known_addresses_are_open(guard, server, method, path):
    assert send(guard, method, path).status_code == 404
    assert server.n_requests == 0


@pytest.mark.parametrize("path", ["/ping", "/health", "/version"])
def test_who_asks_whether_it_lives_gets_through(guard, path):
    assert send(guard, "GET", path, content=b"").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "application/vnd.apache.parquet"},
        {"content-type": "text/csv"},
        {"content-type": "text/plain"},
        {},
    ],
)
def test_other_formats_are_refused(guard, server, headers):
    assert send(guard, headers=headers).status_code == 415
    assert server.n_requests == 0


def test_large_bodies_are_refused_declared_or_not(guard, server):
    async def in_parts():
        for _ in range(5):
            yield b"x" * (1 << 18)

    for content in (b"x" * ((1 << 20) + 1), in_parts()):
        answer = send(guard, content=content)
        assert answer.status_code == 413 and "larger than 1 MB" in answer.json()["message"]
    assert server.n_requests == 0


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"{", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b'{"inputs": ' + b"1" * 5000 + b"}", "not valid JSON"),
        (b"[" * 80, "not valid JSON"),
        (b"[]", "must be a JSON object"),
        (b'{"inputs": [[[[[["YQ=="]]]]]]}', "nested more than 6 deep"),
        (b"[" * 100_000, "more than 10 images"),
        (b'{"inputs": {"image": [' + b"0," * 100_000 + b"0]}}", "more than 10 images"),
        (b'{"a": ' * 100_000, "more than 10 images"),
        ('{"inputs": "' + "a" * (1 << 20) + '😀"}', "must be ASCII"),
        (b'{"inputs": "' + b"a" * (1 << 20) + b'\\ud83d\\ude00"}', "must be ASCII"),
    ],
)
def test_bodies_that_take_memory_are_not_decoded(body, fault):
    body = body.encode() if isinstance(body, str) else body
    assert fault in fault_of_body(body, 10)


def test_bodies_of_every_form_pass():
    images = ["YQ==" * 1000] * 10
    forms = [
        {"dataframe_records": [{"image": image} for image in images]},
        {
            "dataframe_split": {
                "columns": ["image"],
                "index": list(range(10)),
                "data": [[one] for one in images],
            }
        },
        {"inputs": {"image": images}},
        {"instances": [{"image": image} for image in images]},
        {"inputs": {"image": ["얼굴.jpg"]}},
    ]
    assert [fault_of_body(json.dumps(form, indent=2).encode(), 10) for form in forms] == [""] * 5


@pytest.fixture
def mlflows_own(registered, monkeypatch):
    """MLflow's own server module, imported as uvicorn imports it, with the registered model."""
    name, flag = "mlflow.pyfunc.scoring_server.app", "_MLFLOW_IS_IN_SERVING_ENVIRONMENT"
    client, _ = open_store(registered)
    run = client.get_run(registry.challenger(registered).run_id)
    monkeypatch.setenv("__pyfunc_model_path__", f"{run.info.artifact_uri}/model")
    monkeypatch.setenv("AFFECTGAP_SERVE_MAX_ROWS", "3")
    monkeypatch.setenv(flag, "")
    threads = torch.get_num_threads()
    __import__(name)
    yield sys.modules.pop(name)
    torch.set_num_threads(threads)
    os.environ.pop(flag, None)


def test_mlflows_own_server_is_guarded_and_answers(mlflows_own):
    image = base64.b64encode(draw_faces(1)[0]).decode()

    def content(n):
        return json.dumps({"dataframe_records": [{"image": image}] * n}).encode()

    assert isinstance(mlflows_own.app, RequestGuard) and mlflows_own.app is mlflows_own.app
    rows = send(mlflows_own.app, content=content(2)).json()["predictions"]
    assert [row["face"] for row in rows] == [0, 0] and rows[0]["emotion"] == rows[1]["emotion"]
    too_many = send(mlflows_own.app, content=content(4))
    assert too_many.status_code == 400 and "4 images; a request may hold 3" in too_many.text
    assert send(mlflows_own.app, host="evil.example").status_code == 400
    assert send(mlflows_own.app, "GET", "/docs").status_code == 404
    assert send(mlflows_own.app, content=b"{}").status_code == 400  # MLflow's own answer
