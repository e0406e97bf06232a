"""Any DVC target as a Prefect flow: a task a stage, side by side where the graph allows it.

DVC decides what is up to date; Prefect decides when; a stage is one `dvc repro --single-item`.
"""

import os
import re
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import wait
from prefect.task_runners import ThreadPoolTaskRunner
from rich.console import Console

from flows.display import StageDisplay
from flows.dvc_graph import run_dvc, stage_graph
from flows.server import prefect_server
from tasks.core import tracking
from tasks.core.errors import AffectGapError
from tasks.core.locks import alone
from tasks.core.params import load_yaml
from tasks.core.paths import Paths

_SIDE_BY_SIDE = 4  # stages at once: memory stays bounded where the graph is wider


@dataclass(frozen=True)
class Outcome:
    """How a stage ended: `ran`, `restored` (from DVC's run-cache) or `unchanged`."""

    stage: str
    status: str
    summary: str


class StageFailedError(AffectGapError):
    """A stage left with an error; the text is what it said."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
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
    params = load_yaml(paths.params)
    with (
        alone(paths.at("work/run.lock"), f"{paths.root}: another `affectgap run` is at work here"),
        tracking.open_run(paths, "pipeline", params, "pipeline") as run,
        prefect_server(paths.root),
        StageDisplay(console, quiet) as display,
    ):
        os.environ[tracking.PARENT_VARIABLE] = run.run_id
        os.environ["AFFECTGAP_PROGRESS"] = "off" if quiet else "lines"
        try:
            outcomes = _flow_of(paths.root, graph, changed, display)
        finally:
            del os.environ[tracking.PARENT_VARIABLE]
        _log_pipeline(paths, run, outcomes)
    return outcomes


def _flow_of(
    root: Path, graph: Mapping[str, list[str]], changed: Container[str], display: StageDisplay
) -> list[Outcome]:
    @task(cache_policy=NO_CACHE, retries=0, persist_result=False)
    def stage_task(stage: str, upstreams: list[Outcome]) -> Outcome:
        if stage not in changed and all(before.status == "unchanged" for before in upstreams):
            return Outcome(stage, "unchanged", "")
        return _reproduce_stage(root, stage, display)

    @flow(
        name="affectgap",
        task_runner=ThreadPoolTaskRunner(max_workers=_SIDE_BY_SIDE),
        persist_result=False,
    )
    def affectgap() -> list[Outcome]:
        futures = {}
        for stage, upstreams in graph.items():
            named = stage_task.with_options(name=stage, task_run_name=stage)
            futures[stage] = named.submit(stage, [futures[name] for name in upstreams])
        wait(list(futures.values()))
        for future in futures.values():
            if not (future.state.is_failed() or future.state.is_crashed()):
                continue
            error = future.state.result(raise_on_failure=False)
            if isinstance(error, BaseException):
                raise error
        return [future.result() for future in futures.values()]

    outcomes: list[Outcome] = affectgap()
    return outcomes


def _reproduce_stage(root: Path, stage: str, display: StageDisplay) -> Outcome:
    display.start(stage)
    lines: list[str] = []
    # The flag stands before the verb: by default DVC waits 3 s for its lock and gives up.
    for line in run_dvc(root, "--wait-for-lock", "repro", "--single-item", stage):
        display.line(stage, line)
        lines.append(line)
    code = int(lines.pop().removeprefix("exit "))
    if code != 0:
        display.end(stage, "[red]failed[/red]")
        raise _failure(stage, lines)
    outcome = _outcome(stage, lines)
    display.end(stage, outcome.summary or outcome.status)
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
    rest = "\n".join(lines[-20:])
    return StageFailedError(f"stage {stage} failed:\n{rest}", 1)


def _log_pipeline(paths: Paths, run: tracking.Run, outcomes: list[Outcome]) -> None:
    """Link every stage's run from the parent, the reused ones too, and keep the report there."""
    ids = {outcome.stage: tracking.read_run_record(paths, outcome.stage) for outcome in outcomes}
    run.log_tags({_link(outcome): run_id for outcome in outcomes if (run_id := ids[outcome.stage])})
    run.log_tags({"mlflow.note.content": _note(run, outcomes, ids)})
    if any(outcome.stage == "report" for outcome in outcomes):
        run.log_artifact(paths.report)
        run.log_artifact(paths.metrics)
        run.log_artifact(paths.figures)
        run.log_artifact(paths.tables)


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
