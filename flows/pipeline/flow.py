"""Any DVC target as a Prefect flow: one task per stage, in parallel where the graph allows it.

DVC decides what is up to date, Prefect decides when a stage runs, and each stage is one `dvc repro
--single-item`.

A run also reports images whose split changes because a subject id is now normalized. Earlier
versions treated spellings of one id (composed and decomposed Unicode, invisible characters) as
several subjects, and everyone called `NA` as one. A subject's split is drawn from its id, so it may
change once, in the first run that reads such data anew.
"""

import os
import re
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture, wait
from prefect.task_runners import ThreadPoolTaskRunner

from flows.pipeline.dvc_graph import StageFailedError, run_dvc, stage_graph
from flows.pipeline.prefect_server import prefect_server
from flows.pipeline.remote_stages import POOL_VARIABLE, run_on_worker
from flows.pipeline.stage_display import NAME_WIDTH, StageDisplay
from tasks.core.errors import FULL, DataError, says_full
from tasks.core.files import alone
from tasks.core.labels import SPLITS
from tasks.core.params import load_section, load_yaml
from tasks.core.paths import STUDY_RUN, Paths
from tasks.core.tables import current_subjects, read_table_as_written
from tasks.core.terminal import Console
from tasks.core.tracking import mlflow_runs
from tasks.split.stage import Params
from tasks.split.subject_split import assign_splits

_COLUMNS = ("image_id", "subject_id", "subject_known", "split")
MAX_PARALLEL_STAGES = 4  # parallel stages: bounds memory if the graph is wider
_BUSY = "another `affectgap run` or `affectgap study` is at work here"


def moved_splits_note(paths: Paths) -> str:
    """Return a line on images of the last split that change it; "" if none of its ids do."""
    try:
        before = read_table_as_written(paths.split, _COLUMNS)
    except (DataError, OSError):  # no earlier run, or a torn table that DVC rebuilds
        return ""
    now = current_subjects(before)
    renamed = now["subject_id"] != before["subject_id"]
    if not renamed.any():
        return ""
    params = load_section(paths.params, "split", Params)
    parts = {name: getattr(params.ratios, name) for name in SPLITS}
    split = assign_splits(now, params.seed, params.unit == "subject", parts)
    moved = renamed & (split != before["split"])
    trained = moved & (before["split"] == "test") & (split == "train")
    people = before.loc[renamed, "subject_id"].nunique()
    return (
        f"{people} ids are now read in one spelling per person (composed Unicode, no invisible "
        "characters; a word for missing is no id): of their pictures "
        f"{int(moved.sum())} change the split, {int(trained.sum())} of them from test to training. "
        "The gate leaves people who are no longer test people out of the frozen test"
    )


@dataclass(frozen=True)
class Outcome:
    """How a stage ended: `ran`, `restored` (from DVC's run-cache) or `unchanged`."""

    stage: str
    status: str
    summary: str


def reproduce(
    paths: Paths, target: str | None, changed: Container[str], console: Console, quiet: bool
) -> list[Outcome]:
    """Bring a target up to date (None: everything); return one outcome per stage, in graph order.

    `changed` are the stages that DVC reports as changed; others are checked only if an upstream
    stage ran. `quiet` prints lines instead of bars. Raises AffectGapError with the failing stage's
    message and exit code.
    """
    graph = stage_graph(paths.root, target)
    with pipeline_session(paths, "pipeline", load_yaml(paths.params), console, quiet) as (
        run,
        display,
    ):

        @flow(
            name="affectgap",
            task_runner=ThreadPoolTaskRunner(max_workers=MAX_PARALLEL_STAGES),
            persist_result=False,
        )
        def affectgap() -> list[Outcome]:
            return run_stages(paths.root, graph, changed, display)

        outcomes: list[Outcome] = affectgap()
        log_pipeline(paths, run, outcomes)
    return outcomes


@contextmanager
def pipeline_session(
    paths: Paths,
    name: str,
    params: Mapping[str, Any],
    console: Console,
    quiet: bool,
    width: int = NAME_WIDTH,
) -> Iterator[tuple[mlflow_runs.Run, StageDisplay]]:
    """Hold the run lock; yield an open MLflow run and a display, with a Prefect server running.

    `name` is the name and kind of the run, under which the stages' runs are nested; `params` are
    logged. `width` is that of the stages' names. Raises UserError while another command holds the
    lock.
    """
    with (
        alone(paths.at("work/run.lock"), f"{paths.root}: {_BUSY}"),
        mlflow_runs.open_run(paths, name, params, name) as run,
        prefect_server(paths.root),
        StageDisplay(console, quiet, width) as display,
    ):
        if note := moved_splits_note(paths):  # before the stages replace the last split
            console.say(f"note: {note}")
        os.environ[mlflow_runs.PARENT_VARIABLE] = run.run_id
        os.environ["AFFECTGAP_PROGRESS"] = "off" if quiet else "lines"
        try:
            yield run, display
        finally:
            del os.environ[mlflow_runs.PARENT_VARIABLE]


def run_stages(
    root: Path, graph: Mapping[str, list[str]], changed: Container[str], display: StageDisplay
) -> list[Outcome]:
    """Bring the stages of a graph up to date, from within a flow; see `reproduce`."""

    @task(cache_policy=NO_CACHE, retries=0, persist_result=False)
    def stage_task(stage: str, upstreams: list[Outcome]) -> Outcome:
        if stage not in changed and all(before.status == "unchanged" for before in upstreams):
            return Outcome(stage, "unchanged", "")
        return reproduce_stage(root, stage, stage, display)

    futures: dict[str, PrefectFuture[Outcome]] = {}
    for stage, upstreams in graph.items():
        named = stage_task.with_options(name=stage, task_run_name=stage)
        futures[stage] = named.submit(stage, [futures[name] for name in upstreams])
    return collect_outcomes(list(futures.values()))


def collect_outcomes(futures: list[PrefectFuture[Outcome]]) -> list[Outcome]:
    """Wait for every task; raise the first error that a stage itself caused."""
    wait(futures)
    for future in futures:
        if not (future.state.is_failed() or future.state.is_crashed()):
            continue
        error = future.state.result(raise_on_failure=False)
        if isinstance(error, BaseException):
            raise error
    return [future.result() for future in futures]


def reproduce_stage(
    root: Path,
    target: str,
    stage: str,
    display: StageDisplay,
    environment: Mapping[str, str] | None = None,
) -> Outcome:
    """Have DVC bring one stage up to date.

    `target` is the stage's name for DVC, `stage` the one it prints. `environment` is added to its
    process's variables. Raises StageFailedError with the stage's message.
    """
    name = stage.removeprefix(f"{STUDY_RUN}@")
    display.start(name)
    lines: list[str] = []
    # The flag goes before the verb; without it DVC gives up after 3 s.
    arguments = ("--wait-for-lock", "repro", "--single-item", target)
    worker = ""
    if (pool := os.environ.get(POOL_VARIABLE)) and target == stage:  # stages of a study run here
        worker = run_on_worker(root, pool, target)
        arguments = (*arguments, "--pull")
    for line in run_dvc(root, *arguments, environment=environment):
        display.line(name, line)
        lines.append(line)
    code = int(lines.pop().removeprefix("exit "))
    if code != 0:
        display.end(name, "failed", "red")
        raise _failure(stage, lines)
    outcome = _outcome(stage, lines)
    if worker and outcome.status == "restored":
        outcome = Outcome(stage, "ran", f"done by worker {worker}")
    display.end(name, outcome.summary or outcome.status)
    return outcome


def _outcome(stage: str, lines: list[str]) -> Outcome:
    prefix = f"{stage}: "
    summary = next((line.removeprefix(prefix) for line in lines if line.startswith(prefix)), "")
    if any(line.startswith("Running stage") for line in lines):
        return Outcome(stage, "ran", re.sub(r" \(\d+ s\)$", "", summary))
    if any("is cached" in line for line in lines):
        return Outcome(stage, "restored", "restored from DVC's cache")
    return Outcome(stage, "unchanged", "up to date")


def _failure(stage: str, lines: list[str]) -> StageFailedError:
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if errors:
        user_error = any("exited with 2" in line for line in lines)
        return StageFailedError("\n".join(errors), 2 if user_error else 1)
    if any(says_full(line) for line in lines):
        return StageFailedError(FULL, 1)
    rest = "\n".join(lines[-20:])
    return StageFailedError(f"stage {stage} failed:\n{rest}", 1)


def log_pipeline(paths: Paths, run: mlflow_runs.Run, outcomes: list[Outcome]) -> None:
    """Link the stages' runs, and store the report with the parent run."""
    link_stages(paths, run, outcomes)
    if any(outcome.stage == "report" for outcome in outcomes):
        run.log_artifact(paths.report)
        run.log_artifact(paths.metrics)
        run.log_artifact(paths.figures)
        run.log_artifact(paths.tables)


def link_stages(paths: Paths, run: mlflow_runs.Run, outcomes: list[Outcome]) -> None:
    """Link every stage's run from the parent, including reused ones."""
    ids = {outcome.stage: mlflow_runs.read_run_record(paths, outcome.stage) for outcome in outcomes}
    run.log_tags({_link(outcome): run_id for outcome in outcomes if (run_id := ids[outcome.stage])})
    run.log_tags({"mlflow.note.content": _note(run, outcomes, ids)})


def _link(outcome: Outcome) -> str:
    kind = "stage" if outcome.status == "ran" else "reused"
    return f"{kind}.{outcome.stage}"


def _note(run: mlflow_runs.Run, outcomes: list[Outcome], ids: Mapping[str, str | None]) -> str:
    experiment = run.client.get_run(run.run_id).info.experiment_id
    rows = [
        f"| {outcome.stage} | {outcome.status} | "
        f"[{ids[outcome.stage]}](#/experiments/{experiment}/runs/{ids[outcome.stage]}) |"
        for outcome in outcomes
    ]
    return "\n".join(["| stage | this time | run that made it |", "|---|---|---|", *rows])
