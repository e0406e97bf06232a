"""`affectgap study` as a Prefect flow: training runs in batches, as the plan unfolds.

The plan (`tasks.study.plan`) names the next runs. The flow writes them as DVC stages
(flows/study/dvc_stages.py), has DVC bring them up to date in parallel, and asks the plan again. The
choice, the test and the report come last.
"""

import threading
from collections.abc import Container, Iterator

import pandas as pd
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import ThreadPoolTaskRunner

from flows.outages import runs_location
from flows.pipeline.dvc_graph import stage_graph
from flows.pipeline.flow import (
    Outcome,
    collect_outcomes,
    link_stages,
    pipeline_session,
    reproduce_stage,
    run_stages,
)
from flows.pipeline.run_summary import notices
from flows.pipeline.stage_display import StageDisplay
from flows.study.device_pool import DevicePool, DeviceSlot, find_slots
from flows.study.dvc_stages import remove_leftovers, run_stage, target_of
from flows.study.state import StudyState
from tasks.core.labels import ALL
from tasks.core.paths import STUDY_OUTS, Paths
from tasks.core.tables import read_csv
from tasks.core.terminal import Console
from tasks.study.candidates import BACKBONES, ROUNDS, arms_of
from tasks.study.plan import Decision, Progress
from tasks.study.test_evaluation import LOOKS, read_looks

REPORT = "reports/study.html"
_KEY_WIDTH = 44  # characters; wide enough for most keys of runs


def run_study(
    paths: Paths, state: StudyState, changed: Container[str], console: Console, quiet: bool
) -> list[Decision]:
    """Bring the split table and then the whole study up to date; return each round's decision.

    `changed` are the stages up to `split` that DVC reports as changed. `quiet` prints lines instead
    of bars. Raises AffectGapError with the failing stage's message and exit code.
    """
    params = {"study": state.settings.model_dump(), "train": state.train}
    device = str(state.train.get("device", "auto"))
    places = find_slots(state.settings.max_parallel, device)

    with pipeline_session(paths, "study", params, console, quiet, _KEY_WIDTH) as (parent, display):
        runner = ThreadPoolTaskRunner(max_workers=max(len(places), 2))

        @flow(name="affectgap study", task_runner=runner, persist_result=False)
        def study() -> list[Outcome]:
            outcomes = run_stages(paths.root, stage_graph(paths.root, "split"), changed, display)
            return [*outcomes, *_StudyFlow(paths, state, DevicePool(places), display).carry_out()]

        link_stages(paths, parent, study())
        decisions = list(state.progress().decisions)
        chosen = {f"chosen.{decision.round}": decision.chosen.name for decision in decisions}
        parent.log_tags(chosen)
        for artifact in (REPORT, "study/tables", "study/test.csv", "study/chosen.yaml"):
            parent.log_artifact(paths.at(artifact))
    return decisions


def check(state: StudyState) -> None:
    """Validate the study's params before the first run; needs no images."""
    from tasks.study.published import read_study
    from tasks.train.trial import check_names, check_recipe

    if state.settings.published is not None:
        read_study(state.settings.published)
    check_names(state.settings.losses, state.settings.optimizers)
    first = None
    for name in ROUNDS:
        for arm in arms_of(name, state.settings, state.train, first):
            check_recipe(arm.train, state.paths)
            first = first or arm


class _StudyFlow:
    def __init__(
        self, paths: Paths, state: StudyState, places: DevicePool, display: StageDisplay
    ) -> None:
        self.paths = paths
        self.state = state
        self.places = places
        self.display = display
        self.n_reported = 0  # decisions that were printed
        self.stop = threading.Event()  # set after a failure: no more runs are started

    def carry_out(self) -> list[Outcome]:
        if not self.state.looked:
            self.state.look()
        progress = self._report(self.state.progress())
        if not progress.decisions:
            self._check_backbones()
        outcomes: list[Outcome] = []
        while progress.wanted:
            self.state.write(progress)
            outcomes += self._train(progress)
            progress = self._report(self.state.progress())
        self.state.write(progress)
        remove_leftovers(self.paths, progress.runs)
        done = {outcome.stage for outcome in outcomes}
        reused = [run_stage(run.key) for run in progress.runs if run_stage(run.key) not in done]
        outcomes += [Outcome(stage, "unchanged", "") for stage in reused]
        for name in STUDY_OUTS:
            outcomes.append(reproduce_stage(self.paths.root, target_of(name), name, self.display))
        return outcomes

    def _check_backbones(self) -> None:
        from tasks.train.trial import check_trainable

        arms = arms_of(BACKBONES, self.state.settings, self.state.train, None)
        check_trainable([arm.train for arm in arms], self.paths)

    def _train(self, progress: Progress) -> list[Outcome]:
        """Bring the wanted runs up to date in parallel."""

        @task(cache_policy=NO_CACHE, retries=0, persist_result=False)
        def run_task(stage: str) -> Outcome | None:
            with self.places.one() as place:
                return self._reproduce(stage, place)

        futures = []
        for run in progress.wanted:
            stage = run_stage(run.key)
            named = run_task.with_options(name=stage, task_run_name=stage)
            futures.append(named.submit(stage))
        outcomes = collect_outcomes(futures)
        for run, outcome in zip(progress.wanted, outcomes, strict=True):
            self.state.accept(run.key, outcome.status == "ran")
        return outcomes

    def _reproduce(self, stage: str, place: DeviceSlot) -> Outcome | None:
        """Bring one run up to date, unless another one has failed."""
        if self.stop.is_set():
            return None
        try:
            return reproduce_stage(
                self.paths.root, target_of(stage), stage, self.display, place.environment()
            )
        except BaseException:
            self.stop.set()
            raise

    def _report(self, progress: Progress) -> Progress:
        """Print the decisions made since the last call."""
        for decision in progress.decisions[self.n_reported :]:
            self.display.say(f"{decision.round}: {decision.chosen.name}: {decision.why}")
        self.n_reported = len(progress.decisions)
        return progress


def study_lines(paths: Paths, state: StudyState) -> Iterator[str]:
    """Yield the lines about a finished study."""
    for decision in state.progress().decisions:
        yield f"{decision.round}: {decision.chosen.name}. {decision.why}"
    test = read_csv(paths.at("study/test.csv"), keep_default_na=False)
    for row in test[test["dimension"] == ALL].to_dict("records"):
        yield (
            f"test pictures, {str(row['measure']).replace('_', ' ')}: {float(row['value']):.2f} "
            f"({float(row['ci_low']):.2f}–{float(row['ci_high']):.2f}) n={row['images']}"
        )
    yield from _look_lines(test, paths)
    yield from notices(paths)
    yield "the winner as params: affectgap use study/chosen.yaml"
    yield f"report: {paths.at('reports/study.html')}"
    yield f"runs:   {runs_location(paths)}"


def _look_lines(test: pd.DataFrame, paths: Paths) -> Iterator[str]:
    if "look" not in test or test.empty:
        return
    looks, current = len(read_looks(paths.at(LOOKS))), int(test["look"].iloc[0])
    if looks <= 1:
        yield f"test pictures were looked at once ({LOOKS})"
    else:
        yield (
            f"test pictures were looked at {looks} times, this is look {current}: a figure that "
            f"earlier ones had a part in may be too high ({LOOKS})"
        )
