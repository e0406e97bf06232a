"""Overhead of Prefect: `affectgap run` over `dvc repro`, full and with nothing to do.

Two fresh clones of the last commit, with a small drawn cohort (so that the overhead is visible),
run one after the other. Prints the ratios, with and without the start of the Prefect server, and
how much of the time independent stages ran in parallel.

make bench or .venv/bin/python benchmarks/flow.py
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from flows.presets import use_preset

if TYPE_CHECKING:
    from mlflow.entities import Run

REPOSITORY = Path(__file__).resolve().parent.parent
RUN = [sys.executable, "-c", "from flows.cli import main; main()", "run", "--quiet"]
REPRO = [sys.executable, "-m", "dvc", "repro"]
SERVER = (
    "from pathlib import Path; from flows.process_env import prepare_environment;"
    "prepare_environment(Path('.').resolve());"
    "from flows.pipeline.prefect_server import prefect_server\n"
    "with prefect_server(Path('.').resolve()): pass"
)


def clone(folder: Path) -> Path:
    """Clone the last commit, with this environment and the small cohort."""
    subprocess.run(["git", "clone", "-q", str(REPOSITORY), str(folder)], check=True)
    (folder / ".venv").symlink_to(REPOSITORY / ".venv")
    use_preset(folder, "quick")
    return folder


def seconds(command: list[str], folder: Path) -> float:
    """Run a command in a clone and return its wall time."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "DVC_NO_ANALYTICS": "1"}
    environment.pop("PREFECT_API_URL", None)
    started = time.monotonic()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    took = time.monotonic() - started
    if done.returncode != 0:
        sys.exit(f"{command} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return took


def stage_runs(folder: Path) -> list["Run"]:
    """Return the runs of stages that MLflow's store of a clone has."""
    from tasks.core.paths import Paths
    from tasks.core.tracking import mlflow_runs

    client, experiment = mlflow_runs.open_store(Paths(folder))
    return list(client.search_runs([experiment], "tags.`affectgap.kind` = 'stage'"))


def require_runs(folders: list[Path], n_stages: int | None = None) -> int:
    """Return how many stages ran in each clone; exit unless they are as many, and `n_stages`.

    A stage that a cache answers would make its side look fast.
    """
    counts = [len(stage_runs(folder)) for folder in folders]
    expected = counts[0] if n_stages is None else n_stages
    if not expected or any(count != expected for count in counts):
        sys.exit(f"{counts} stages ran, and not {expected} in each: nothing can be compared")
    return expected


def overlap_share(folder: Path) -> float:
    """Share of the time from first stage to last in which at least two stages ran."""
    runs = stage_runs(folder)
    edges = sorted(
        edge for run in runs for edge in ((run.info.start_time, 1), (run.info.end_time, -1))
    )
    together, open_stages = 0, 0
    for (moment, step), (following, _) in pairwise(edges):
        open_stages += step
        together += (following - moment) * (open_stages > 1)
    return together / (edges[-1][0] - edges[0][0])


def main() -> int:
    """Measure, print and return 0 where both bounds hold."""
    folder = Path(tempfile.mkdtemp(prefix="affectgap-bench-"))
    try:
        flow, plain = clone(folder / "flow"), clone(folder / "plain")
        plain_full, flow_full = seconds(REPRO, plain), seconds(RUN, flow)
        n_stages = require_runs([plain, flow])
        plain_idle, flow_idle = seconds(REPRO, plain), seconds(RUN, flow)
        require_runs([plain, flow], n_stages)
        server = seconds([sys.executable, "-c", SERVER], flow)
        print(f"dvc repro           full {plain_full:6.1f} s, nothing to do {plain_idle:5.1f} s")
        print(f"affectgap run       full {flow_full:6.1f} s, nothing to do {flow_idle:5.1f} s")
        print(f"server alone        {server:11.1f} s (started only when there is work)")
        print(f"ratio, full         {flow_full / plain_full:6.2f}")
        print(f"  less the server   {(flow_full - server) / plain_full:6.2f}  (at most 1.15)")
        bound = 1.15 * plain_idle + server
        print(f"nothing to do       {flow_idle:6.1f} s (at most {bound:.1f}: 1.15 times + server)")
        print(f"two stages at once  {overlap_share(flow):6.0%} of the time")
        return 0 if flow_full - server <= 1.15 * plain_full and flow_idle <= bound else 1
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
