"""The doctor's look at what is written down: runs, passes, steps of batches, models; processes."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from flows.finding import Finding
from flows.starter import is_left_over
from flows.unfinished import finish_promotion, has_store
from tasks.core.errors import AffectGapError
from tasks.core.ledger import Ledger
from tasks.core.paths import Paths
from tasks.core.process import is_dead

_CHILDREN = (  # what commands of ours start, by what stands in their command line
    "-m tasks ",
    "main_of_dvc(",
    "from flows.server import serve",
    "multiprocessing.spawn",
    "multiprocessing.resource_tracker",
    "multiprocessing.forkserver",
)
_STOP_S = 5


def orphans(paths: Paths) -> Iterator[Finding]:
    """End processes of ours whose command is gone; what `dvc repro` runs by itself is none."""
    left = [process for process in psutil.process_iter() if _is_orphan(process, paths.root)]
    for process in left:
        with suppress(psutil.NoSuchProcess):  # it may end by itself meanwhile
            told = " ".join(process.cmdline())[:80]
            process.terminate()
            where = f"process {process.pid}"
            yield Finding(f"its command is gone ({told})", where, "ended", mended=True)
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
        told = "says that `affectgap serve` stands by, which is gone"
        yield Finding(told, ".prefect/serving.json", "removed", mended=True)


def dead_runs(paths: Paths) -> Iterator[Finding]:
    """Close the tracking runs of processes that are gone."""
    if not has_store(paths):
        return
    from tasks.core.tracking import close_dead_runs

    if closed := close_dead_runs(paths):
        yield Finding(
            f"{closed} runs of processes that are gone", "MLflow", "ended as KILLED", True
        )


def dead_passes(paths: Paths) -> Iterator[Finding]:
    """Close passes of processes that are gone."""
    for number in Ledger(paths.ledger).close_dead_passes():
        remedy = "closed; `affectgap retrain` does it again"
        yield Finding("its process is gone", f"pass {number}", remedy, mended=True)


def half_taken_in(paths: Paths) -> Iterator[Finding]:
    """Finish or undo what a killed intake or withdrawal left."""
    from flows.inbox_steps import STUCK, mend  # the lock is held

    for line in mend(paths, lambda _: None):
        where, _, what = line.partition(": ")
        what, _, remedy = what.partition("; ")
        lost = "is nowhere" in line or STUCK in line
        yield Finding(what, where, remedy or "done", mended=not lost)


def unfinished_promotion(paths: Paths) -> Iterator[Finding]:
    """Put into use what was decided, where a pass was killed before it could."""
    for line in finish_promotion(paths):
        if line.startswith("finished: "):
            yield Finding("was not finished", "promotion", line.removeprefix("finished: "), True)


def model_in_use(paths: Paths) -> Iterator[Finding]:
    """Compare the alias `champion` with promotions.csv, and read the model's files."""
    from tasks.register import records

    row = records.in_use(records.read_records(paths))
    if row is None and not has_store(paths):
        return
    from tasks.register.registry import champion, fetch

    version = champion(paths) if has_store(paths) else None
    decided = None if row is None else int(row["version"])
    in_use = None if version is None else version.number
    if decided != in_use:
        told = f"version {in_use} is in use, and the last line says {decided}"
        remedy = "`git checkout registry/promotions.csv`, or `affectgap rollback`, as is right"
        if version is None:
            remedy = "set MLFLOW_TRACKING_URI back, or bring back mlruns/"
        yield Finding(told, "registry/promotions.csv", remedy, mended=False)
    if version is None:
        return
    try:
        fetch(paths, version.number)
    except AffectGapError as error:
        remedy = "`affectgap rollback`, or bring back mlruns/ from a copy"
        yield Finding(str(error), f"version {version.number}, in use", remedy, mended=False)


def _is_orphan(process: psutil.Process, root: Path) -> bool:
    try:
        told = " ".join(process.cmdline())
        if not any(words in told for words in _CHILDREN) or Path(process.cwd()) != root:
            return False
        return is_left_over(process)
    except (psutil.Error, OSError):
        return False
