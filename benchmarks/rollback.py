"""Claim: going back to the version before takes under a second of work, and is recorded.

A store with VERSIONS versions, each put into use after the other, and then as many goings back as
ROUNDS, each in a process of its own as `affectgap rollback` is. Work is all that the command does
once Python's libraries are imported and MLflow's store is open, which takes longer than the work:
both are printed, in seconds on the clock and of the processor (which other work on the machine
changes less), with the work's ratio to that start and to one second. Every going back must have
moved the aliases and written its line into registry/promotions.csv.

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

from flows.environment import prepare_environment
from tasks.core.paths import Paths
from tasks.core.tracking import open_store
from tasks.register import registry
from tasks.register.records import read_records

ROOT = Path(__file__).resolve().parent.parent
VERSIONS, ROUNDS = 50, 7
MOST_S = 1.0
COMMAND = """
import sys, time
times = [(time.perf_counter(), time.process_time())]
from pathlib import Path
from flows.environment import prepare_environment
from tasks.core.paths import Paths
paths = Paths(Path(sys.argv[1]))
prepare_environment(paths.root)
from flows.registry import rollback_command
from tasks.core.tracking import open_store
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
    first = client.get_model_version(registry.NAME, "1")
    for number in range(1, VERSIONS + 1):
        if number > 1:
            client.create_model_version(registry.NAME, first.source, first.run_id, dict(first.tags))
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
    said, figures = done.stdout.splitlines()
    assert said.startswith(f"version {to} "), said
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
    print(f"{VERSIONS} versions, {ROUNDS} goings back, each recorded; medians")
    print(f"start       {start:5.2f} s, {start_used:5.2f} s of the processor (libraries, store)")
    print(
        f"work        {work:5.2f} s, {work_used:5.2f} s of the processor; slowest {slowest:.2f} s"
    )
    print(f"work/start  {work / start:5.2f}")
    print(f"work/1 s    {work / MOST_S:5.2f} (at most 1)")
    return 0 if work <= MOST_S else 1


if __name__ == "__main__":
    sys.exit(main())
