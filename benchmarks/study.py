"""Claim: successive halving chooses what the full grid does, for at most a third of its epochs.

Draws the cohort of `presets/study-quick.yaml`, trains every arm of every round with every seed to
the end (the full grid, protocol `better` without halving), and stores each run's result at every
rung. A run's schedule spans all epochs, so that a rung is the beginning of the run that goes to the
end. Then the plan is replayed on these results with the preset's halving. Prints the winner of each
round with and without halving, the epochs of both, and whether the target is met: the same winner
for at most a third of the epochs. The drawn cohort is a demonstration, not evidence about children.

Where halving chooses otherwise in one round, the next round would compare other arms than the grid
does. Each round is therefore judged separately, starting from the grid's winner of the round
before.

.venv/bin/python benchmarks/study.py [SHIFT OF THE SEEDS …]

Each shift (default 0) is a separate study with other initial weights, order and augmentation.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from flows.presets import preset_text, use_preset
from tasks.core.parallel.execution import process_pool
from tasks.core.paths import Paths
from tasks.study.candidates import Arm, Run
from tasks.study.plan import Progress, decide, epochs_of_grid, epochs_trained, progress
from tasks.study.results import Result, read_result
from tasks.study.selection_rule import rungs_of
from tasks.study.settings import Params

REPOSITORY = Path(__file__).resolve().parent.parent
PRESET = REPOSITORY / "presets" / "study-quick.yaml"
STAGES = ("draw", "ingest", "check", "crop", "split")
MARK = 1 / 3


def project(folder: Path) -> dict[str, Any]:
    """Write the preset and run the stages up to the split; return the params."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    for name in ("tasks", "flows"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__py*"))
    shutil.copy(REPOSITORY / "dvc.yaml", folder)
    use_preset(folder, PRESET.stem)
    for stage in STAGES:
        environment = {**os.environ, "PYTHONPATH": str(folder)}
        command = [sys.executable, "-m", "tasks", stage]
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    content: dict[str, Any] = yaml.safe_load(preset_text(REPOSITORY, PRESET))
    return content


class Grid:
    """Runs that are trained when they are asked for, with every rung on their way."""

    def __init__(self, settings: Params, train: dict[str, Any], folder: Path) -> None:
        self.settings = settings
        self.train = train
        self.folder = folder
        self.results: dict[str, Result] = {}
        self.epochs = 0

    def play(self, settings: Params) -> Progress:
        """Play a study to its end, training what is missing."""
        while True:
            found = progress(settings, self.train, self.results)
            if not found.wanted:
                return found
            self._carry_out(found.wanted)

    def _carry_out(self, runs: Sequence[Run]) -> None:
        """Train runs to their end, side by side, and keep what they tell at each rung."""
        asked = [(self.folder, content) for content in self._contents(runs)]
        with process_pool(0) as pool:  # its processes die with this one
            for batch in pool.map(train_run, asked):
                self.results |= {result.key: result for result in batch}
                self.epochs += self.settings.epochs
                print(f"  {_result_line(batch[-1])}", flush=True)

    def _contents(self, runs: Sequence[Run]) -> Iterator[dict[str, dict[str, Any]]]:
        """Files of the rungs of each run, by key."""
        for home, run in {run.key.rpartition("-e")[0]: run for run in runs}.items():
            yield {
                f"{home}-e{rung.until}": {**run.content(), "until": rung.until}
                for rung in rungs_of(self.settings)
                if run.seed in rung.seeds
            }


def train_run(asked: tuple[Path, dict[str, dict[str, Any]]]) -> list[Result]:
    """Train a run from rung to rung, on one core."""
    import torch

    from tasks.train import trial

    torch.set_num_threads(1)
    folder, contents = asked
    paths, results = Paths(folder), []
    for key, content in contents.items():
        path = paths.study_run(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        trial.run(trial.load_run(paths, key), paths, key)
        results.append(read_result(paths.study_result(key)))
    return results


def _result_line(result: Result) -> str:
    if result.failed:
        return f"{result.key}: {result.failed}"
    curve = [f"{100 * value:.0f}" for value in result.history["valid_recall_score"]]
    return f"{result.key}: {' '.join(curve)} % ({result.facts['train_seconds']:.0f} s)"


def study(folder: Path, content: dict[str, Any], shift: int) -> bool:
    """Train the grid, play the halving, print both; return whether the mark holds."""
    section = content["study"]
    seeds = [seed + shift for seed in section["seeds"]]
    settings = Params.model_validate({**section, "protocol": "multi_seed", "seeds": seeds})
    grid = Grid(settings, content["train"], folder)
    started = time.monotonic()
    print(f"\nseeds {seeds}, {settings.epochs} epochs, halving {settings.halving}")
    complete = grid.play(settings.model_copy(update={"halving": None}))
    full = grid.epochs
    halved = grid.play(settings)
    print(f"  trained {grid.epochs} epochs in {time.monotonic() - started:.0f} s")
    return _compare(settings, complete, halved, grid, full)


def _compare(settings: Params, complete: Progress, halved: Progress, grid: Grid, full: int) -> bool:
    before: Arm | None = None
    for one in complete.decisions:
        decision = decide(one.round, before, settings, grid.train, grid.results)
        known = 0 if before is None else len(settings.used_seeds) * settings.epochs
        every = epochs_of_grid(settings, [one]) - known
        done = epochs_trained(decision.runs) - known
        print(f"  {one.round} from the grid's: {every} and {done} epochs ({done / every:.0%})")
        print(f"    full grid: {one.chosen.name}: {one.why}")
        print(f"    halving:   {decision.chosen.name}: {decision.why}")
        before = one.chosen
    same = before.train == halved.decisions[-1].chosen.train
    share = epochs_trained(halved.runs) / full
    verdict = "holds" if same and share <= MARK else "missed"
    winner = "the same winner" if same else "another winner"
    print(f"  the whole of it: {winner} for {share:.1%} ({epochs_trained(halved.runs)} of {full})")
    print(f"  the mark (the same, at most {MARK:.0%}): {verdict}", flush=True)
    return same and share <= MARK


def main() -> int:
    """Measure, print and return 0 where the mark holds in every study."""
    shifts = [int(shift) for shift in sys.argv[1:]] or [0]
    folder = Path(tempfile.mkdtemp(prefix="affectgap-study-"))
    try:
        content = project(folder)
        held = [study(folder, content, shift) for shift in shifts]
        print(f"\nthe mark held in {sum(held)} of {len(held)} studies")
        return 0 if all(held) else 1
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
