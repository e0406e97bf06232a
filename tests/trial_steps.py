"""The recorded trial, step by step: what the short test and the full benchmark both do.

Adults alone, then children in batches: a good one, a broken one, and one in which a site mixed up
anger and disgust. Nothing here looks at how the steps are done: only commands are called.
"""

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batches import break_files, draw_batch, mark_ready, swap_labels
from pass_world import EMOTIONS, SIZE_PX, commit_all, run, small_params, write_params
from whole_way import environment, fresh_clone

from tasks.core.paths import Paths

_UP_S = 180
# One emotion in children is drawn as clearly as in adults, so that few pictures are enough.
_MILD = {"rotation_deg": 5, "shift": 0.02, "scale": [1.0, 1.0], "gray": 0.0}
_MILD |= {"brightness": 0.1, "contrast": 0.1, "saturation": 0.1}
_GROUPS = {"min_n": 18, "min_subjects": 3, "resamples": 500}


@dataclass(frozen=True)
class Size:
    """How many people, and pictures a person and emotion, each part of the trial has."""

    adults: int
    good: int
    mislabelled: int
    takes: int
    split_seed: int  # one that divides so few people evenly


SHORT = Size(adults=30, good=20, mislabelled=40, takes=3, split_seed=4082)


def trial_project(folder: Path, size: Size) -> Paths:
    """A clone with adults alone, trained by a small network; every stage is there."""
    clone = fresh_clone(folder, "quick")
    params = small_params(clone, subjects={"adult": size.adults}, images_per_emotion=size.takes + 1)
    params["split"]["seed"] = size.split_seed
    how = {"batch_size": 16, "learning_rate": 0.001}
    params["train"] |= {"backbone": "lenet5", "input_size_px": 64, "epochs": 20, **how}
    params["finetune"] |= {"strategies": ["replay"], "min_n": 5, **how}
    params["finetune"]["replay"] |= {"epochs": 8, "learning_rate": 0.001}
    params["finetune"]["replay"]["subset"] = {"age_band": ["adult"]}
    for section in ("train", "finetune"):
        params[section]["augmentation"] |= _MILD
    params["interpolate"] |= {"from": "replay", "coefficients": 2, "min_n": 5}
    params["choose"]["min_n"] = 5
    params["audit"]["resamples"] = 200
    params["explain"] |= {"images_per_group": 1, "num_samples": 20}
    params["retrain"] |= {"new_images": 50, "new_children": 10}
    params["promote"] |= _GROUPS
    params["promote"]["margins"] |= {"overall": 0.04, "group": 0.08}
    params["promote"]["margins"] |= {"calibration": 0.08, "robustness": 0.1}
    write_params(clone, params)
    commit_all(clone)
    return Paths(clone)


def good_batch(paths: Paths, size: Size) -> None:
    folder = paths.inbox / "site-1"
    how = {"emotions": EMOTIONS, "size_px": SIZE_PX, "takes": size.takes}
    mark_ready(draw_batch(folder, 101, size.good, **how))


def broken_batch(paths: Paths, size: Size) -> list[str]:
    folder = paths.inbox / "site-2"
    draw_batch(folder, 401, 4, emotions=EMOTIONS, size_px=SIZE_PX)
    names = break_files(folder)
    mark_ready(folder)
    return names


def mislabelled_batch(paths: Paths, size: Size) -> None:
    folder = paths.inbox / "site-3"
    how = {"emotions": EMOTIONS, "size_px": SIZE_PX, "takes": size.takes}
    draw_batch(folder, 201, size.mislabelled, **how)
    mark_ready(swap_labels(folder, "anger", "disgust"))


def image_of_a_child() -> bytes:
    """A drawn child whom no model has seen, as JPEG."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        batch = draw_batch(Path(folder), 501, 1, emotions=["happiness"], size_px=SIZE_PX)
        return next(batch.glob("*.jpg")).read_bytes()


@contextmanager
def served(paths: Paths) -> Any:
    """Serve the model in use as the manual says; yields a function from a JPEG to the answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "models",
        "serve",
        "-m",
        "models:/affectgap@champion",
    ]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    scripts = str(Path(sys.executable).parent)
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{paths.mlruns / 'mlflow.db'}"}
    path = {"PATH": f"{scripts}:{os.environ['PATH']}", "MLFLOW_DISABLE_TELEMETRY": "true"}
    log = paths.at("work/served.txt")
    with log.open("wb") as said:
        server = subprocess.Popen(
            command,
            cwd=paths.at("work"),
            env={**environment(paths.root), **store, **path},
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + _UP_S
        while not _answers(port):
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.3)
        yield lambda jpeg: _ask(port, jpeg)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=60)


def version_in_use(paths: Paths) -> str:
    """What `affectgap status` says is in use: `2 (4f1c…)`."""
    said = run(paths, "status")
    found = re.search(r"in use\s+version (\d+) \((\w+)\)", said)
    assert found, said
    return f"{found[1]} {found[2]}"


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _ask(port: int, jpeg: bytes) -> list[dict[str, Any]]:
    content = {"dataframe_records": [{"image": base64.b64encode(jpeg).decode()}]}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations",
        json.dumps(content).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        return list(json.loads(answer.read())["predictions"])
