"""Fault injection: `affectgap retrain` is killed at random moments, then run again.

After each fault a plain restart must give what an undisturbed pass gives: every image in one place,
ledger and disk agreed, the same tables byte for byte, no process left, no run RUNNING in MLflow, no
second promotion. Prints one line per fault, and exits with 1 at the first difference.

.venv/bin/python benchmarks/faults.py --kills 50

The passes are those of a small project in which one stage makes a model of random weights, so that
there is time for many kills. With `--whole` the project has every stage, the gate has the margins
of the short trial, and one of the batches is mislabelled.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import fault_steps as faults
from pass_world import run, small_project, three_batches
from trial_steps import SHORT, broken_batch, good_batch, mislabelled_batch, trial_project

from tasks.core.paths import Paths


def prepared(folder: Path, whole: bool) -> Paths:
    """Make a project with a model in use and three batches in the inbox."""
    ready = trial_project(folder, SHORT) if whole else small_project(folder)
    output = run(ready, "retrain", "--quiet")
    if "is put into use" not in output:  # nothing could then be promoted twice
        sys.exit(f"no model came into use at first:\n{output}")
    if whole:
        for send in (good_batch, broken_batch, mislabelled_batch):
            send(ready, SHORT)
    else:
        three_batches(ready)
    return ready


def main() -> None:
    """Inject every fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--longest", type=float, default=30, help="seconds before a kill, at most")
    parser.add_argument("--seed", type=int, default=5, help="of the moments")
    parser.add_argument("--whole", action="store_true", help="with every stage and a strict gate")
    parser.add_argument("--only", default="", help="a part of the name of the faults to carry out")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="affectgap-faults-") as place:
        folder = Path(place)
        ready = prepared(folder / "ready", chosen.whole)
        began = time.monotonic()
        expected = faults.undisturbed(ready, folder / "undisturbed")
        decided = [action for action, *_ in expected.decisions]
        print(f"undisturbed pass: {time.monotonic() - began:.0f} s; {decided}", flush=True)
        if len(decided) < 2:
            sys.exit("the undisturbed pass decided nothing")
        everything: dict[str, Callable[[], str]] = {
            "killed, torn, two at once": lambda: faults.killed(
                ready, expected, folder, chosen.kills, chosen.longest, chosen.seed
            ),
            "MLflow's database locked": lambda: faults.locked_database(ready, expected, folder, 30),
            "Prefect server gone": lambda: faults.server_gone(ready, expected, folder),
            "clock set back": lambda: faults.clock_set_back(ready, expected, folder),
            "_READY too early": lambda: faults.ready_while_read(ready, folder),
            "disk full while moving": lambda: faults.full_disk(
                ready, expected, folder / "disk-1", at=faults.MOVING
            ),
            "disk nearly full from the start": lambda: faults.full_disk(
                ready, expected, folder / "disk-3", free_mb=0.2
            ),
            "disk full while writing weights": lambda: faults.full_disk(
                ready, expected, folder / "disk-2", at="small_train.py"
            ),
        }
        for name, fault in everything.items():
            if chosen.only in name:
                began = time.monotonic()
                print(f"{name}: {fault()} ({time.monotonic() - began:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
