"""Claim: the model server answers many clients at once exactly as it answers one.

MLflow's own server (`mlflow models serve`) is asked 5,000 times by 50 clients: one or two images of
mixed sizes per request (London photographs where AFFECTGAP_ASSETS names them, else drawn faces),
and in a fifth of the requests something malformed. Every answer is compared, byte for byte, with
the answer to the same request asked alone.

The rate is compared with that of independent processes, one per core, which load the same model and
read the same images without HTTP: nothing is shared there, so nothing waits for a lock. Targets: no
different answer, a server that lives, its peak memory under 3 GB, and at least the rate of the
processes divided by the number of cores (a rate of more than 1.1 of theirs would be a measuring
error, and fails as well).

    AFFECTGAP_ASSETS=<folder> python benchmarks/serving.py [--requests 5000] [--clients 50]
"""

import argparse
import base64
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from registered_project import make_project
from serving_load import (
    Outcome,
    ask_at_once,
    images_of_mixed_sizes,
    malformed_requests,
    model_server,
    ordinary_requests,
    peak_bytes,
    serial_answers,
)

from flows.process_env import prepare_environment
from tasks.core.paths import Paths
from tasks.core.tracking.mlflow_runs import open_store
from tasks.register import registry

IMAGES = 30
ROUNDS = 4  # of all images, in each process without a server
LARGEST_BYTES = 3 << 30
ALONE = """
import base64, json, sys, time
import mlflow, pandas as pd, torch
torch.set_num_threads(1)
model = mlflow.pyfunc.load_model(sys.argv[1])
images = [base64.b64decode(text) for text in json.load(open(sys.argv[2]))]
model.predict(pd.DataFrame({"image": images[:3]}))
print("ready", flush=True)
sys.stdin.readline()
started = time.perf_counter()
for _ in range(int(sys.argv[3])):
    for image in images:
        model.predict(pd.DataFrame({"image": [image]}))
print(len(images) * int(sys.argv[3]) / (time.perf_counter() - started))
"""


def rate_of_processes(project: Paths, images: list[bytes], folder: Path, cores: int) -> float:
    """Return images per second of one process per core, all at the same time."""
    client, _ = open_store(project)
    run_id = registry.champion(project).run_id
    model = client.get_run(run_id).info.artifact_uri.removeprefix("file://") + "/model"
    file = folder / "images.json"
    file.write_text(json.dumps([base64.b64encode(image).decode() for image in images]))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ALONE, model, str(file), str(ROUNDS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(cores)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    return sum(float(process.communicate()[0]) for process in processes)


def measure(folder: Path, n: int, clients: int) -> tuple[Outcome, float, int]:
    """Return the outcome of many clients, the rate of processes, and the server's peak memory."""
    images = images_of_mixed_sizes(IMAGES, os.environ.get("AFFECTGAP_ASSETS"))
    prepare_environment(folder / "project")
    project = make_project(folder / "project")
    version = registry.register_challenger(project, project.model("finetuned"), {})
    registry.promote(project, version.number, None)
    before = rate_of_processes(project, images, folder, cores())
    requests = [*ordinary_requests(images), *malformed_requests(images[0])]
    with model_server(project, folder) as (port, pid):
        outcome = ask_at_once(port, serial_answers(port, requests), n, clients)
        after = rate_of_processes(project, images, folder, cores())
        return outcome, (before + after) / 2, peak_bytes(pid)


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def main() -> int:
    """Measure, print and return 0 where the targets are met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--clients", type=int, default=50)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcome, rate, peak = measure(Path(folder), options.requests, options.clients)
    served = outcome.n_images / outcome.seconds
    share, n_cores = served / rate, cores()
    print(
        f"serving: {outcome.n_requests} requests by {options.clients} clients, "
        f"{len(outcome.wrong)} answers differ from the serial ones (target 0)"
    )
    for request, (status, answer) in outcome.wrong[:5]:
        print(f"serving: differs: {request.body[:80]!r} got {status} {answer[:200]!r}")
    print(f"serving: {served:.1f} images/s over HTTP; {rate:.1f} in {n_cores} processes without")
    print(f"serving: ratio {share:.2f} (target {1 / n_cores:.2f} to 1.1)")
    print(f"serving: peak memory of the server {peak / 2**30:.2f} GB (target under 3)")
    fast = 1 / n_cores <= share <= 1.1
    return 0 if not outcome.wrong and fast and peak < LARGEST_BYTES else 1


if __name__ == "__main__":
    sys.exit(main())
