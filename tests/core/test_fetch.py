"""Downloads against a server on 127.0.0.1: whole, resumed, wrong, unreachable."""

import hashlib
import http.server
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

import numpy as np
import pytest
import requests

from tasks.core.download import cache_dir, fetch_file, figshare_files
from tasks.core.errors import DownloadError, ModelError
from tasks.train.pretrained.weights import WEIGHTS, WeightsFile, local_folders, weights_file

CONTENT = np.random.default_rng(1).bytes(3 * (1 << 20) + 123)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(http.server.BaseHTTPRequestHandler):
    """Serves `files`; cuts the first `cuts` answers in half; understands ranges if `ranges`.

    With `tag` it names the version of its files, and `If-Range` is respected.
    """

    files: ClassVar[dict[str, bytes]] = {}
    asked: ClassVar[list[tuple[str, str | None]]] = []
    cuts: ClassVar[int] = 0
    ranges: ClassVar[bool] = True
    tag: ClassVar[str | None] = None

    def do_GET(self) -> None:
        cls = type(self)
        wanted = self.headers.get("Range") if cls.ranges else None
        if self.headers.get("If-Range", cls.tag) != cls.tag:
            wanted = None
        cls.asked.append((self.path, self.headers.get("Range")))
        content = cls.files.get(self.path)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if content is None or (wanted and start >= len(content)):
            self.send_error(404 if content is None else 416)
            return
        body = content[start:]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(body)))
        if cls.tag is not None:
            self.send_header("ETag", cls.tag)
        self.end_headers()
        if cls.cuts:
            cls.cuts -= 1
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def log_message(self, *details: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Server.files, Server.asked, Server.cuts, Server.ranges = {"/model": CONTENT}, [], 0, True
    Server.tag = None
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()
    running.server_close()


@pytest.fixture
def closed_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{found.getsockname()[1]}"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFFECTGAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("AFFECTGAP_ASSETS", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def part_of(folder: Path) -> Path:
    return folder / f"model.{SHA256[:12]}.part"


@pytest.mark.parametrize("digest", [SHA256, f"sha256:{SHA256}", f"md5:{MD5}"])
def test_file_is_downloaded_once(server: str, tmp_path: Path, digest: str) -> None:
    for _ in range(2):
        path = fetch_file(f"{server}/model", digest, "model", tmp_path)
        assert path == tmp_path / "model" and path.read_bytes() == CONTENT
    assert len(Server.asked) == 1
    assert {entry.name for entry in tmp_path.iterdir()} <= {"model", "model.lock"}


def test_download_that_is_cut_goes_on_where_it_was(server: str, tmp_path: Path) -> None:
    Server.cuts = 2
    assert fetch_file(f"{server}/model", SHA256, "model", tmp_path).read_bytes() == CONTENT
    starts = [wanted for _, wanted in Server.asked]
    assert starts[0] is None and len(starts) == 3
    begun = [int(wanted[6:-1]) for wanted in starts[1:] if wanted]
    assert 0 < begun[0] < begun[1] < len(CONTENT)


def test_part_of_an_earlier_call_is_resumed(server: str, tmp_path: Path) -> None:
    part_of(tmp_path).write_bytes(CONTENT[:1000])
    assert fetch_file(f"{server}/model", SHA256, "model", tmp_path).read_bytes() == CONTENT
    assert Server.asked == [("/model", "bytes=1000-")]
    assert not part_of(tmp_path).exists()


def test_what_came_before_the_network_went_stays_for_the_next_call(
    server: str, tmp_path: Path
) -> None:
    Server.cuts = 1000
    with pytest.raises(DownloadError) as caught:
        fetch_file(f"{server}/model", SHA256, "model", tmp_path)
    one_line(caught.value, "model", SHA256)
    kept = part_of(tmp_path).read_bytes()
    assert kept == CONTENT[: len(kept)] and len(kept) > len(CONTENT) // 2
    Server.cuts = 0
    assert fetch_file(f"{server}/model", SHA256, "model", tmp_path).read_bytes() == CONTENT
    assert Server.asked[-1] == ("/model", f"bytes={len(kept)}-")


def test_server_without_ranges_starts_again(server: str, tmp_path: Path) -> None:
    Server.ranges = False
    part_of(tmp_path).write_bytes(b"x" * 1000)
    assert fetch_file(f"{server}/model", SHA256, "model", tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("length", [1000, len(CONTENT), len(CONTENT) + 5])
def test_part_of_another_file_is_given_up(server: str, tmp_path: Path, length: int) -> None:
    part_of(tmp_path).write_bytes(b"x" * length)
    assert fetch_file(f"{server}/model", SHA256, "model", tmp_path).read_bytes() == CONTENT


def one_line(error: DownloadError, *named: str) -> None:
    text = str(error)
    assert "\n" not in text
    for word in named:
        assert word in text


def test_wrong_digest_leaves_nothing_under_the_name(server: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadError) as caught:
        fetch_file(f"{server}/model", "0" * 64, "model", tmp_path)
    one_line(caught.value, "model", "0" * 64, SHA256, str(tmp_path / "model"))
    assert {entry.name for entry in tmp_path.iterdir()} <= {"model.lock"}


def test_unreachable_server_is_one_line_that_helps(closed_port: str, tmp_path: Path) -> None:
    address = f"{closed_port}/model"
    with pytest.raises(DownloadError) as caught:
        fetch_file(address, SHA256, "model", tmp_path)
    one_line(caught.value, "model", address, SHA256, f"put it at {tmp_path / 'model'}")
    assert f"no connection to {closed_port.removeprefix('http://')}" in str(caught.value)


def test_missing_file_is_asked_for_once(server: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadError) as caught:
        fetch_file(f"{server}/gone", SHA256, "gone", tmp_path)
    one_line(caught.value, "404", str(tmp_path / "gone"))
    assert len(Server.asked) == 1


def test_file_put_there_by_hand_is_taken_or_refused(closed_port: str, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(CONTENT)
    assert fetch_file(f"{closed_port}/model", SHA256, "model", tmp_path).is_file()
    (tmp_path / "model").write_bytes(b"another")
    with pytest.raises(DownloadError) as caught:
        fetch_file(f"{closed_port}/model", SHA256, "model", tmp_path)
    one_line(caught.value, "another file", SHA256, str(tmp_path / "model"))
    assert (tmp_path / "model").read_bytes() == b"another"


def test_a_file_of_unknown_digest_is_resumed_in_its_own_version_alone(
    server: str, tmp_path: Path
) -> None:
    Server.tag, Server.cuts = '"first"', 1000
    with pytest.raises(DownloadError):
        fetch_file(f"{server}/model", None, "model", tmp_path)
    Server.cuts, have = 0, (tmp_path / "model.unknown.part").stat().st_size
    assert 0 < have < len(CONTENT)
    assert fetch_file(f"{server}/model", None, "model", tmp_path).read_bytes() == CONTENT
    assert Server.asked[-1] == ("/model", f"bytes={have}-")

    other = bytes(reversed(CONTENT))
    Server.cuts = 1000
    with pytest.raises(DownloadError):
        fetch_file(f"{server}/model", None, "again", tmp_path)
    Server.files["/model"], Server.tag, Server.cuts = other, '"second"', 0
    assert fetch_file(f"{server}/model", None, "again", tmp_path).read_bytes() == other
    left = {entry.name for entry in tmp_path.iterdir()}
    assert left <= {"model", "model.lock", "again", "again.lock"}


def test_a_file_of_unknown_digest_without_versions_starts_again(
    server: str, tmp_path: Path
) -> None:
    (tmp_path / "model.unknown.part").write_bytes(b"x" * 1000)
    assert fetch_file(f"{server}/model", None, "model", tmp_path).read_bytes() == CONTENT
    assert Server.asked == [("/model", None)]


def test_cache_dir_is_named_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFFECTGAP_CACHE", "~/elsewhere")
    assert cache_dir() == Path.home() / "elsewhere"
    monkeypatch.delenv("AFFECTGAP_CACHE")
    assert cache_dir().is_absolute() and "affectgap" in str(cache_dir())


@pytest.fixture
def model(server: str, monkeypatch: pytest.MonkeyPatch) -> WeightsFile:
    file = WeightsFile("model", SHA256, f"{server}/model", "MIT", "nobody")
    monkeypatch.setattr("tasks.train.pretrained.weights.WEIGHTS", {"model": file})
    return file


def test_weights_are_looked_for_before_they_are_downloaded(
    model: WeightsFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "team/checkout"
    beside = tmp_path / "team/shared/assets/weights"
    named = tmp_path / "assets/weights"
    monkeypatch.setenv("AFFECTGAP_ASSETS", str(tmp_path / "assets"))
    assert local_folders(root) == []
    assert weights_file("model", root) == cache_dir() / "weights/model"
    assert len(Server.asked) == 1
    for folder in (beside, named):
        folder.mkdir(parents=True)
        (folder / "model").write_bytes(CONTENT)
    assert local_folders(root) == [named, beside]
    (cache_dir() / "weights/model").unlink()
    assert weights_file("model", root) == named / "model"
    (named / "model").unlink()
    assert weights_file("model", root) == beside / "model"
    assert len(Server.asked) == 1


def test_other_weights_of_that_name_are_refused(model: WeightsFile, tmp_path: Path) -> None:
    beside = tmp_path / "shared/assets/weights"
    beside.mkdir(parents=True)
    (beside / "model").write_bytes(b"another")
    with pytest.raises(DownloadError) as caught:
        weights_file("model", tmp_path / "checkout")
    one_line(caught.value, str(beside / "model"), SHA256, "another file")


def test_unknown_weights_list_the_known(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="fer2013_mini_XCEPTION"):
        weights_file("resnet", tmp_path)
    assert all(file.sha256 is None or len(file.sha256) == 64 for file in WEIGHTS.values())


@pytest.fixture
def unrecorded(server: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = WeightsFile("model", None, f"{server}/model", "MIT", "nobody")
    monkeypatch.setattr("tasks.train.pretrained.weights.WEIGHTS", {"model": file})
    return cache_dir() / "weights/model.sha256"


@pytest.mark.parametrize("by_hand", [False, True])
def test_an_unknown_digest_is_recorded_and_compared_from_then_on(
    unrecorded: Path, tmp_path: Path, by_hand: bool
) -> None:
    path = cache_dir() / "weights/model"
    if by_hand:
        path.parent.mkdir(parents=True)
        path.write_bytes(CONTENT)
    for _ in range(2):
        assert weights_file("model", tmp_path) == path
    assert unrecorded.read_text() == f"{SHA256}\n"
    assert len(Server.asked) == (0 if by_hand else 1)

    path.write_bytes(b"another")
    with pytest.raises(DownloadError) as caught:
        weights_file("model", tmp_path)
    one_line(caught.value, str(path), SHA256, str(unrecorded), "another file")
    unrecorded.unlink()
    assert weights_file("model", tmp_path) == path


def test_an_unknown_digest_holds_wherever_the_file_lies(unrecorded: Path, tmp_path: Path) -> None:
    beside = tmp_path / "shared/assets/weights/model"
    beside.parent.mkdir(parents=True)
    beside.write_bytes(CONTENT)
    assert weights_file("model", tmp_path / "checkout") == beside
    assert {entry.name for entry in beside.parent.iterdir()} == {"model"}
    beside.write_bytes(b"another")
    with pytest.raises(DownloadError, match=SHA256):
        weights_file("model", tmp_path / "checkout")


def test_without_a_network_one_line_says_what_to_put_where(
    unrecorded: Path, closed_port: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"{closed_port}/model"
    file = WeightsFile("model", None, address, "MIT", "nobody")
    monkeypatch.setattr("tasks.train.pretrained.weights.WEIGHTS", {"model": file})
    with pytest.raises(DownloadError) as caught:
        weights_file("model", tmp_path)
    one_line(caught.value, address, f"put it at {cache_dir() / 'weights/model'}")
    assert not unrecorded.exists()


def answers_for_figshare(monkeypatch: pytest.MonkeyPatch, server: str) -> None:
    """Lead everything that is asked of figshare's API to the server on this machine."""
    send = requests.adapters.HTTPAdapter.send

    def redirected(self: object, request: requests.PreparedRequest, **options: object) -> object:
        address = urlsplit(str(request.url))
        if address.hostname != "127.0.0.1":
            assert address.hostname == "api.figshare.com"
            request.url = server + address.path
        return send(self, request, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", redirected)


def test_figshare_is_asked_for_addresses_and_digests(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers_for_figshare(monkeypatch, server)
    files = [{"name": "a.zip", "download_url": f"{server}/model", "computed_md5": MD5}]
    Server.files["/v2/articles"] = json.dumps([{"id": 77}]).encode()
    Server.files["/v2/articles/77/versions/5"] = json.dumps({"files": files}).encode()
    assert figshare_files("10.6084/m9.figshare.77.v5") == {
        "a.zip": (f"{server}/model", f"md5:{MD5}")
    }


@pytest.mark.parametrize("answer", [b"[]", b"<html>no programs here</html>", b'{"code": 1}', None])
def test_strange_answers_of_figshare_are_one_line(
    server: str, monkeypatch: pytest.MonkeyPatch, answer: bytes | None
) -> None:
    answers_for_figshare(monkeypatch, server)
    if answer is not None:
        Server.files["/v2/articles"] = answer
    with pytest.raises(DownloadError) as caught:
        figshare_files("10.6084/m9.figshare.77.v5")
    one_line(caught.value, "https://doi.org/10.6084/m9.figshare.77.v5")
