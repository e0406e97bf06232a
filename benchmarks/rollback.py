"""Claim: a rollback to the previous version takes under a second of work, and is recorded.

Makes a store with VERSIONS versions that were promoted one after the other, then runs ROUNDS
rollbacks, each in a separate process as `affectgap rollback` does. Work is everything that the
command does after Python's libraries are imported and MLflow's store is open. Prints start and work
in wall-clock and CPU seconds (which other load on the machine changes less), with the ratios of the
work to the start and to one second. Every rollback must have moved the aliases and written its line
into registry/promotions.csv.

.venv/bin/python benchmarks/rollback.py
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from registered_project import make_project

from flows.process_env import prepare_environment
from tasks.core.paths import Paths
from tasks.core.tracking.mlflow_runs import open_store
from tasks.register import registry, versions
from tasks.register.promotion_log import read_records

ROOT = Path(__file__).resolve().parent.parent
VERSIONS, ROUNDS = 50, 7
MOST_S = 1.0
COMMAND = """
import sys, time
times = [(time.perf_counter(), time.process_time())]
from pathlib import Path
from flows.process_env import prepare_environment
from tasks.core.paths import Paths
paths = Paths(Path(sys.argv[1]))
prepare_environment(paths.root)
from flows.registry.model_table import rollback_command
from tasks.core.tracking.mlflow_runs import open_store
open_store(paths)
times.append((time.perf_counter(), time.process_time()))
lines = rollback_command(paths, "a measurement", "benchmark")
times.append((time.perf_counter(), time.process_time()))
print(lines[0])
print(*(after - before for kind in zip(*times) for before, after in zip(kind, kind[1:])))
"""


def store(root: Path) -> Paths:
    """Make a project whose versions all came into use, the last one last."""
    prepare_environment(root)
    paths = make_project(root)
    registry.register_challenger(paths, paths.model("finetuned"), {"pass": "1"})
    client, _ = open_store(paths)
    first = client.get_model_version(versions.NAME, "1")
    for number in range(1, VERSIONS + 1):
        if number > 1:
            client.create_model_version(versions.NAME, first.source, first.run_id, dict(first.tags))
        registry.promote(paths, number, number - 1 or None, f"decision-{number}")
    return paths


def go_back(paths: Paths, to: int) -> list[float]:
    """Roll back; return seconds: start and work on the clock, start and work of the processor."""
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, str(paths.root)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(f"rollback failed:\n{done.stdout}{done.stderr}")
    message, figures = done.stdout.splitlines()
    assert message.startswith(f"version {to} "), message
    in_use, before = registry.champion(paths), registry.previous(paths)
    assert in_use is not None and in_use.number == to
    assert before is not None and before.number == to - 1
    last = read_records(paths).iloc[-1]
    assert (last["action"], last["version"]) == ("rolled_back", str(to)), last
    return [float(figure) for figure in figures.split()]


def main() -> int:
    """Measure, print and return 0 where the claim holds."""
    with tempfile.TemporaryDirectory(prefix="affectgap-rollback-") as place:
        paths = store(Path(place))
        rounds = [go_back(paths, VERSIONS - 1 - number) for number in range(ROUNDS)]
        assert len(read_records(paths)) == ROUNDS
    start, work, start_used, work_used = (median(kind) for kind in zip(*rounds, strict=True))
    slowest = max(seconds[1] for seconds in rounds)
    print(f"{VERSIONS} versions, {ROUNDS} rollbacks, each recorded; medians")
    print(f"start       {start:5.2f} s, {start_used:5.2f} s of the processor (libraries, store)")
    print(
        f"work        {work:5.2f} s, {work_used:5.2f} s of the processor; slowest {slowest:.2f} s"
    )
    print(f"work/start  {work / start:5.2f}")
    print(f"work/1 s    {work / MOST_S:5.2f} (at most 1)")
    return 0 if work <= MOST_S else 1


if __name__ == "__main__":
    sys.exit(main())
