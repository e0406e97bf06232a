"""Checks of the doctor on recorded state: runs, passes, intakes, models and processes."""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from flows.ledger.ledger import Ledger
from flows.process_env import is_orphan
from flows.registry.recovery import complete_promotion, has_store
from tasks.core.errors import AffectGapError
from tasks.core.parallel.process import is_dead
from tasks.core.paths import Paths

_CHILDREN = (  # parts of the command lines of processes that our commands start
    "-m tasks ",
    "run_dvc_cli(",
    "from flows.pipeline.prefect_server import serve",
    "multiprocessing.spawn",
    "multiprocessing.resource_tracker",
    "multiprocessing.forkserver",
)
_STOP_S = 5


@dataclass(frozen=True)
class Finding:
    """Something that a crash, a full disk or a person left wrong.

    `where` names the file, folder, batch, run or process. `remedy` is what was done, or what a
    person has to do if `mended` is false.
    """

    what: str
    where: str
    remedy: str
    mended: bool

    def __str__(self) -> str:
        return f"{'mended' if self.mended else 'FOUND '}  {self.where}: {self.what}; {self.remedy}"


def orphans(paths: Paths) -> Iterator[Finding]:
    """End processes whose `affectgap` command is gone; those of a plain `dvc repro` stay."""
    left = [process for process in psutil.process_iter() if _is_orphan(process, paths.root)]
    for process in left:
        with suppress(psutil.NoSuchProcess):  # it may have ended meanwhile
            command = " ".join(process.cmdline())[:80]
            process.terminate()
            where = f"process {process.pid}"
            yield Finding(f"its command is gone ({command})", where, "ended", mended=True)
    for process in psutil.wait_procs(left, timeout=_STOP_S)[1]:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def serving_note(paths: Paths) -> Iterator[Finding]:
    """Remove the note of an `affectgap serve` that was killed."""
    note = paths.at(".prefect/serving.json")
    try:
        process = str(json.loads(note.read_text(encoding="utf-8"))["process"])
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError):
        process = ""
    if not process or is_dead(process):
        note.unlink()
        fault = "names an `affectgap serve` that is gone"
        yield Finding(fault, ".prefect/serving.json", "removed", mended=True)


def dead_runs(paths: Paths) -> Iterator[Finding]:
    """Close the tracking runs of processes that are gone."""
    if not has_store(paths):
        return
    from tasks.core.tracking.mlflow_runs import close_dead_runs

    if closed := close_dead_runs(paths):
        fault = f"{closed} runs of processes that are gone"
        yield Finding(fault, "MLflow", "ended as KILLED", mended=True)


def dead_passes(paths: Paths) -> Iterator[Finding]:
    """Close passes of processes that are gone."""
    for number in Ledger(paths.ledger).close_dead_passes():
        remedy = "closed; `affectgap retrain` does it again"
        yield Finding("its process is gone", f"pass {number}", remedy, mended=True)


def interrupted_intakes(paths: Paths) -> Iterator[Finding]:
    """Complete or undo what a killed intake or withdrawal left."""
    from flows.intake.recovery import recover

    for repair in recover(paths, lambda _: None):
        yield Finding(repair.what, repair.where, repair.remedy or "done", mended=repair.done)


def unfinished_promotion(paths: Paths) -> Iterator[Finding]:
    """Complete a promotion that a crash interrupted."""
    for line in complete_promotion(paths):
        if line.startswith("finished: "):
            yield Finding("was not finished", "promotion", line.removeprefix("finished: "), True)


def model_in_use(paths: Paths) -> Iterator[Finding]:
    """Compare the alias `champion` with promotions.csv, and read the model's files."""
    from tasks.register import promotion_log

    row = promotion_log.in_use(promotion_log.read_records(paths))
    if row is None and not has_store(paths):
        return
    from tasks.register.registry import champion, fetch

    version = champion(paths) if has_store(paths) else None
    recorded = None if row is None else int(row["version"])
    in_use = None if version is None else version.number
    if recorded != in_use:
        fault = f"version {in_use} is in use, and the last line says {recorded}"
        remedy = "`git checkout registry/promotions.csv`, or `affectgap rollback`, as is right"
        if version is None:
            remedy = "set MLFLOW_TRACKING_URI back, or restore mlruns/"
        yield Finding(fault, "registry/promotions.csv", remedy, mended=False)
    if version is None:
        return
    try:
        fetch(paths, version.number)
    except AffectGapError as error:
        remedy = "`affectgap rollback`, or restore mlruns/ from a backup"
        yield Finding(str(error), f"version {version.number}, in use", remedy, mended=False)


def _is_orphan(process: psutil.Process, root: Path) -> bool:
    try:
        command = " ".join(process.cmdline())
        if not any(part in command for part in _CHILDREN) or Path(process.cwd()) != root:
            return False
        return is_orphan(process)
    except (psutil.Error, OSError):
        return False
