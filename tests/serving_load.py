"""MLflow's model server, started as the manual says, and many clients that ask it at once."""

import base64
import http.client
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import URLError

import pandas as pd
import psutil
from PIL import Image
from registered_project import draw_faces

from tasks.core.paths import Paths

JSON = {"Content-Type": "application/json"}
SIDES_PX = (1350, 640, 320, 200, 120)  # longer sides of the images that are asked about


@dataclass(frozen=True)
class Request:
    """One request; `torn` ones are given up by the client after half of the body."""

    body: bytes
    headers: dict[str, str] = field(default_factory=lambda: dict(JSON))
    torn: bool = False


@contextmanager
def model_server(project: Paths, folder: Path, **variables: str) -> Iterator[tuple[int, int]]:
    """Serve the champion from an empty folder that is no project; yield port and process id."""
    port, log = _free_port(), folder / "server.log"
    command = ["mlflow", "models", "serve", "-m", "models:/affectgap@champion"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    scripts = str(Path(sys.executable).parent)
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment = {
        **inherited,
        "PATH": f"{scripts}:{inherited['PATH']}",
        "MLFLOW_TRACKING_URI": f"sqlite:///{project.mlruns / 'mlflow.db'}",
        "DO_NOT_TRACK": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        **variables,
    }
    (folder / "elsewhere").mkdir()
    with log.open("w") as output:
        server = subprocess.Popen(
            command,
            cwd=folder / "elsewhere",
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_for(server, port, log)
        yield port, server.pid
        assert server.poll() is None, f"the server ended:\n{log.read_text()[-3000:]}"
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
        server.wait(20)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_for(server: subprocess.Popen, port: int, log: Path) -> None:
    until = time.monotonic() + 240
    while time.monotonic() < until and server.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5)
            return
        except (URLError, OSError):
            time.sleep(0.3)
    raise AssertionError(log.read_text()[-3000:])


def images_of_mixed_sizes(n: int, assets: str | None) -> list[bytes]:
    """JPEGs of the London photographs, or of drawn faces where there are none here."""
    if assets:
        files = sorted(Path(assets, "london").glob("*/[0-9]*.jpg"))
        images = [file.read_bytes() for file in files[:: max(1, len(files) // n)][:n]]
    else:
        images = draw_faces(n, 480)
    return [of_side(image, SIDES_PX[at % len(SIDES_PX)]) for at, image in enumerate(images)]


def of_side(content: bytes, side_px: int) -> bytes:
    image = Image.open(io.BytesIO(content)).convert("RGB")
    image.thumbnail((side_px, side_px))
    target = io.BytesIO()
    image.save(target, "JPEG", quality=90)
    return target.getvalue()


def ordinary_requests(images: Sequence[bytes]) -> list[Request]:
    """Request each image alone, and together with its neighbour."""
    pairs = zip(images, [*images[1:], images[0]], strict=True)
    return [asking(*some) for image, other in pairs for some in ((image,), (image, other))]


def asking(*images: bytes | str) -> Request:
    texts = [one if isinstance(one, str) else base64.b64encode(one).decode() for one in images]
    return Request(json.dumps({"dataframe_records": [{"image": one} for one in texts]}).encode())


def malformed_requests(image: bytes) -> list[Request]:
    """Requests that get an error, or a note; each is answered in the same words every time."""
    parquet = io.BytesIO()
    pd.DataFrame({"image": ["x"] * 1000}).to_parquet(parquet)
    good = asking(image).body
    return [
        Request(b"{"),
        Request(b"\xff\xfe\x00"),
        Request(b"[" * 100_000),
        Request(b'{"dataframe_records":' + b"[" * 200 + b"]" * 200 + b"}"),
        Request(b'{"dataframe_records": [{"picture": "x"}]}'),
        Request(json.dumps({"inputs": {"image": ["x"] * 5000}}).encode()),
        Request(good, {"Content-Type": "text/csv"}),
        Request(parquet.getvalue(), {"Content-Type": "application/vnd.apache.parquet"}),
        Request(good, {**JSON, "Host": "evil.example"}),
        Request(good, {}),
        Request(good, torn=True),
        asking(image[: len(image) // 2]),
        asking(b"no image at all", image),
        asking(png_that_declares(20_000, 20_000)),
        asking("/etc/passwd", "../../etc/passwd", "nowhere.jpg"),
        asking(gray_png(300)),
    ]


def hostile_requests() -> list[Request]:
    """Few bytes, or just many enough, that would take gigabytes if they were decoded."""
    pixels = io.BytesIO()
    Image.new("1", (9000, 6600)).save(pixels, "PNG")
    table = io.BytesIO()
    pd.DataFrame({"image": ["x" * 100] * 3_000_000}).to_parquet(table)
    limit = 32 << 20
    return [
        asking(pixels.getvalue()),
        Request(table.getvalue(), {"Content-Type": "application/vnd.apache.parquet"}),
        Request(b'{"inputs": "' + b"A" * limit),
        Request(b'{"inputs": {"image": [' + b"0," * (limit // 2 - 20) + b"0]}}"),
        Request(b'{"a":' * (limit // 5)),
        Request(('{"inputs": "😀' + "a" * (limit - 100) + '"}').encode()),
    ]


def peak_bytes(pid: int) -> int:
    """Return the largest resident memory so far of a process and those that it started."""
    tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    lines = [Path(f"/proc/{one.pid}/status").read_text().splitlines() for one in tree]
    peaks = [int(line.split()[1]) for status in lines for line in status if "VmHWM" in line]
    return max(peaks) * 1024


def gray_png(side_px: int) -> bytes:
    target = io.BytesIO()
    Image.new("RGB", (side_px, side_px), "gray").save(target, "PNG")
    return target.getvalue()


def png_that_declares(width_px: int, height_px: int) -> bytes:
    """A PNG of a few bytes whose header names a size."""
    header = b"IHDR" + width_px.to_bytes(4, "big") + height_px.to_bytes(4, "big") + b"\x08\0\0\0\0"
    chunk = b"\0\0\0\x0d" + header + zlib.crc32(header).to_bytes(4, "big")
    data = b"IDAT" + zlib.compress(b"\0" * 64)
    data = (len(data) - 4).to_bytes(4, "big") + data + zlib.crc32(data).to_bytes(4, "big")
    return b"\x89PNG\r\n\x1a\n" + chunk + data


def ask(port: int, request: Request) -> tuple[int, bytes]:
    """Send a request over a connection of its own; return status and answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    try:
        connection.putrequest("POST", "/invocations", skip_host="Host" in request.headers)
        for name, value in request.headers.items():
            connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(request.body)))
        connection.endheaders()
        if request.torn:
            connection.send(request.body[: len(request.body) // 2])
            return 0, b""
        connection.send(request.body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@dataclass(frozen=True)
class Outcome:
    """Of many requests: which answers were others than the serial ones, and how long it took."""

    wrong: list[tuple[Request, tuple[int, bytes]]]
    n_requests: int
    n_images: int
    seconds: float


def ask_at_once(
    port: int, answers: dict[int, tuple[Request, tuple[int, bytes]]], n: int, clients: int
) -> Outcome:
    """Send `n` requests by several clients, and compare with the serial answers."""
    order = random.Random(20261130).choices(sorted(answers), k=n)

    def one(number: int) -> tuple[Request, tuple[int, bytes]] | None:
        request, serial = answers[number]
        answer = ask(port, request)
        return None if answer == serial else (request, answer)

    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        outcomes = list(pool.map(one, order))
    seconds = time.perf_counter() - started
    n_images = sum(_n_answered(answers[number][1]) for number in order)
    return Outcome([one for one in outcomes if one], n, n_images, seconds)


def serial_answers(
    port: int, requests: Sequence[Request]
) -> dict[int, tuple[Request, tuple[int, bytes]]]:
    """Send one request after the other."""
    return {number: (request, ask(port, request)) for number, request in enumerate(requests)}


def _n_answered(answer: tuple[int, bytes]) -> int:
    status, body = answer
    if status != 200:
        return 0
    rows = json.loads(body)["predictions"]
    return len({row["row"] for row in rows if row["emotion"] is not None})
