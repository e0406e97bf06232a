"""Any DVC target as a Prefect flow: a task a stage, side by side where the graph allows it.

DVC decides what is up to date; Prefect decides when; a stage is one `dvc repro --single-item`.
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

from flows.display import NAME_WIDTH, StageDisplay
from flows.dvc_graph import run_dvc, stage_graph
from flows.moved_splits import moved_splits_note
from flows.on_workers import POOL_VARIABLE, run_on_worker
from flows.server import prefect_server
from tasks.core import tracking
from tasks.core.errors import AffectGapError
from tasks.core.locks import alone
from tasks.core.no_room import FULL, says_full
from tasks.core.params import load_yaml
from tasks.core.paths import STUDY_RUN, Paths
from tasks.core.terminal import Console

SIDE_BY_SIDE = 4  # stages at once: memory stays bounded where the graph is wider
_BUSY = "another `affectgap run` or `affectgap study` is at work here"


@dataclass(frozen=True)
class Outcome:
    """How a stage ended: `ran`, `restored` (from DVC's run-cache) or `unchanged`."""

    stage: str
    status: str
    summary: str


class StageFailedError(AffectGapError):
    """A stage left with an error; the text is what it said."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(*text.splitlines())
        self.exit_code = exit_code


def reproduce(
    paths: Paths, target: str | None, changed: Container[str], console: Console, quiet: bool
) -> list[Outcome]:
    """Bring a target up to date.

    Parameters
    ----------
    paths
        The project's paths.
    target
        A stage, or None for everything.
    changed
        The stages that DVC calls changed; another one is looked at only when one before it ran.
    console
        Where progress is shown.
    quiet
        True: lines instead of bars.

    Returns
    -------
    list of Outcome
        One a stage, in the graph's order.

    Raises
    ------
    AffectGapError
        With the failing stage's own line(s) and exit code.
    """
    graph = stage_graph(paths.root, target)
    with at_work(paths, "pipeline", load_yaml(paths.params), console, quiet) as (run, display):

        @flow(
            name="affectgap",
            task_runner=ThreadPoolTaskRunner(max_workers=SIDE_BY_SIDE),
            persist_result=False,
        )
        def affectgap() -> list[Outcome]:
            return run_stages(paths.root, graph, changed, display)

        outcomes: list[Outcome] = affectgap()
        log_pipeline(paths, run, outcomes)
    return outcomes


@contextmanager
def at_work(
    paths: Paths,
    name: str,
    params: Mapping[str, Any],
    console: Console,
    quiet: bool,
    width: int = NAME_WIDTH,
) -> Iterator[tuple[tracking.Run, StageDisplay]]:
    """Be the only command at work here: tracking run, Prefect server and display are open.

    Parameters
    ----------
    paths
        The project's paths.
    name, params
        The name of the parent run in MLflow, which is its kind as well, and what it was asked.
    console, quiet
        See `reproduce`.
    width
        Characters that the stages' names take there.

    Yields
    ------
    tuple
        The parent run, under which the stages' runs are nested, and the display.

    Raises
    ------
    UserError
        Where another command is at work.
    """
    with (
        alone(paths.at("work/run.lock"), f"{paths.root}: {_BUSY}"),
        tracking.open_run(paths, name, params, name) as run,
        prefect_server(paths.root),
        StageDisplay(console, quiet, width) as display,
    ):
        if note := moved_splits_note(paths):  # while the last split is still there
            console.say(f"note: {note}")
        os.environ[tracking.PARENT_VARIABLE] = run.run_id
        os.environ["AFFECTGAP_PROGRESS"] = "off" if quiet else "lines"
        try:
            yield run, display
        finally:
            del os.environ[tracking.PARENT_VARIABLE]


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
    return outcomes_of(list(futures.values()))


def outcomes_of(futures: list[PrefectFuture[Outcome]]) -> list[Outcome]:
    """Wait for every task; raise the error of the first that failed by itself."""
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
    """Let DVC bring one stage up to date.

    Parameters
    ----------
    root
        The project's folder.
    target, stage
        The stage's name for DVC, and as it calls itself and is shown.
    display
        Where it is shown.
    environment
        Variables for the stage's process.

    Raises
    ------
    StageFailedError
        With what the stage said.
    """
    shown = stage.removeprefix(f"{STUDY_RUN}@")
    display.start(shown)
    lines: list[str] = []
    # The flag stands before the verb: by default DVC waits 3 s for its lock and gives up.
    arguments = ("--wait-for-lock", "repro", "--single-item", target)
    worker = ""
    if (pool := os.environ.get(POOL_VARIABLE)) and target == stage:  # not those of a study
        worker = run_on_worker(root, pool, target)
        arguments = (*arguments, "--pull")
    for line in run_dvc(root, *arguments, environment=environment):
        display.line(shown, line)
        lines.append(line)
    code = int(lines.pop().removeprefix("exit "))
    if code != 0:
        display.end(shown, "failed", "red")
        raise _failure(stage, lines)
    outcome = _outcome(stage, lines)
    if worker and outcome.status == "restored":
        outcome = Outcome(stage, "ran", f"done by worker {worker}")
    display.end(shown, outcome.summary or outcome.status)
    return outcome


def _outcome(stage: str, lines: list[str]) -> Outcome:
    said = f"{stage}: "
    summary = next((line.removeprefix(said) for line in lines if line.startswith(said)), "")
    if any(line.startswith("Running stage") for line in lines):
        return Outcome(stage, "ran", re.sub(r" \(\d+ s\)$", "", summary))
    if any("is cached" in line for line in lines):
        return Outcome(stage, "restored", "restored from DVC's cache")
    return Outcome(stage, "unchanged", "up to date")


def _failure(stage: str, lines: list[str]) -> StageFailedError:
    told = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if told:
        mistake = any("exited with 2" in line for line in lines)
        return StageFailedError("\n".join(told), 2 if mistake else 1)
    if any(says_full(line) for line in lines):
        return StageFailedError(FULL, 1)
    rest = "\n".join(lines[-20:])
    return StageFailedError(f"stage {stage} failed:\n{rest}", 1)


def log_pipeline(paths: Paths, run: tracking.Run, outcomes: list[Outcome]) -> None:
    """Link the stages' runs, and keep the report with the parent."""
    link_stages(paths, run, outcomes)
    if any(outcome.stage == "report" for outcome in outcomes):
        run.log_artifact(paths.report)
        run.log_artifact(paths.metrics)
        run.log_artifact(paths.figures)
        run.log_artifact(paths.tables)


def link_stages(paths: Paths, run: tracking.Run, outcomes: list[Outcome]) -> None:
    """Link every stage's run from the parent, the reused ones too."""
    ids = {outcome.stage: tracking.read_run_record(paths, outcome.stage) for outcome in outcomes}
    run.log_tags({_link(outcome): run_id for outcome in outcomes if (run_id := ids[outcome.stage])})
    run.log_tags({"mlflow.note.content": _note(run, outcomes, ids)})


def _link(outcome: Outcome) -> str:
    kind = "stage" if outcome.status == "ran" else "reused"
    return f"{kind}.{outcome.stage}"


def _note(run: tracking.Run, outcomes: list[Outcome], ids: Mapping[str, str | None]) -> str:
    experiment = run.client.get_run(run.run_id).info.experiment_id
    rows = [
        f"| {outcome.stage} | {outcome.status} | "
        f"[{ids[outcome.stage]}](#/experiments/{experiment}/runs/{ids[outcome.stage]}) |"
        for outcome in outcomes
    ]
    return "\n".join(["| stage | this time | run that made it |", "|---|---|---|", *rows])
