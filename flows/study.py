"""`affectgap study` as a Prefect flow: batch after batch of runs, as the plan unfolds.

The plan (`tasks.study.plan`) says which runs are wanted next; the flow writes them as DVC stages
(flows/study_stages.py), lets DVC bring them up to date side by side, and asks again. Last come the
choice, the test and the report.
"""

import threading
from collections.abc import Container

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import ThreadPoolTaskRunner

from flows.display import StageDisplay
from flows.dvc_graph import stage_graph
from flows.reproduce import Outcome, at_work, link_stages, outcomes_of, reproduce_stage, run_stages
from flows.side_by_side import Place, Places, places_here
from flows.study_stages import remove_leftovers, run_stage, target_of
from flows.study_state import StudyState
from tasks.core.paths import STUDY_OUTS, Paths
from tasks.core.terminal import Console
from tasks.study.arms import BACKBONES, ROUNDS, arms_of
from tasks.study.plan import Decision, Progress

REPORT = "reports/study.html"
_KEY_WIDTH = 44  # characters of most runs' keys


def carry_out_study(
    paths: Paths, state: StudyState, changed: Container[str], console: Console, quiet: bool
) -> list[Decision]:
    """Bring the split table and then the whole study up to date.

    Parameters
    ----------
    paths
        The project's paths.
    state
        The study.
    changed
        The stages up to `split` that DVC calls changed.
    console, quiet
        Where progress is shown; True: lines instead of bars.

    Returns
    -------
    list of Decision
        What the rounds found.

    Raises
    ------
    AffectGapError
        With the failing stage's own line(s) and exit code.
    """
    asked = {"study": state.settings.model_dump(), "train": state.train}
    device = str(state.train.get("device", "auto"))
    places = places_here(state.settings.side_by_side, device)

    with at_work(paths, "study", asked, console, quiet, _KEY_WIDTH) as (parent, display):
        runner = ThreadPoolTaskRunner(max_workers=max(len(places), 2))

        @flow(name="affectgap study", task_runner=runner, persist_result=False)
        def study() -> list[Outcome]:
            outcomes = run_stages(paths.root, stage_graph(paths.root, "split"), changed, display)
            return [*outcomes, *_Flow(paths, state, Places(places), display).carry_out()]

        link_stages(paths, parent, study())
        decisions = list(state.progress().decisions)
        parent.log_tags({f"chosen.{found.round}": found.chosen.name for found in decisions})
        for artifact in (REPORT, "study/tables", "study/test.csv", "study/chosen.yaml"):
            parent.log_artifact(paths.at(artifact))
    return decisions


def check(state: StudyState) -> None:
    """Make sure that nothing that params say will stop a study later; needs no pictures."""
    from tasks.study.published import read_study
    from tasks.train.study_check import check_names, check_recipe

    if state.settings.published is not None:
        read_study(state.settings.published)
    check_names(state.settings.losses, state.settings.optimisers)
    first = None
    for name in ROUNDS:
        for arm in arms_of(name, state.settings, state.train, first):
            check_recipe(arm.train, state.paths)
            first = first or arm


class _Flow:
    """The study within the flow."""

    def __init__(
        self, paths: Paths, state: StudyState, places: Places, display: StageDisplay
    ) -> None:
        self.paths = paths
        self.state = state
        self.places = places
        self.display = display
        self.told = 0  # decisions that were shown
        self.stop = threading.Event()  # a run failed: none is begun any more

    def carry_out(self) -> list[Outcome]:
        if not self.state.looked:
            self.state.look()
        found = self._tell(self.state.progress())
        if not found.decisions:
            self._check_backbones()
        outcomes: list[Outcome] = []
        while found.wanted:
            self.state.write(found)
            outcomes += self._train(found)
            found = self._tell(self.state.progress())
        self.state.write(found)
        remove_leftovers(self.paths, found.runs)
        done = {outcome.stage for outcome in outcomes}
        reused = [run_stage(run.key) for run in found.runs if run_stage(run.key) not in done]
        outcomes += [Outcome(stage, "unchanged", "") for stage in reused]
        for name in STUDY_OUTS:
            outcomes.append(reproduce_stage(self.paths.root, target_of(name), name, self.display))
        return outcomes

    def _check_backbones(self) -> None:
        from tasks.train.study_check import check_trainable

        arms = arms_of(BACKBONES, self.state.settings, self.state.train, None)
        check_trainable([arm.train for arm in arms], self.paths)

    def _train(self, found: Progress) -> list[Outcome]:
        """Bring the wanted runs up to date side by side."""

        @task(cache_policy=NO_CACHE, retries=0, persist_result=False)
        def run_task(stage: str) -> Outcome | None:
            with self.places.one() as place:
                return self._reproduce(stage, place)

        futures = []
        for run in found.wanted:
            stage = run_stage(run.key)
            named = run_task.with_options(name=stage, task_run_name=stage)
            futures.append(named.submit(stage))
        outcomes = outcomes_of(futures)
        for run, outcome in zip(found.wanted, outcomes, strict=True):
            self.state.accept(run.key, outcome.status == "ran")
        return outcomes

    def _reproduce(self, stage: str, place: Place) -> Outcome | None:
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

    def _tell(self, found: Progress) -> Progress:
        """Show what was decided since the last time."""
        for decision in found.decisions[self.told :]:
            self.display.say(f"{decision.round}: {decision.chosen.name}: {decision.why}")
        self.told = len(found.decisions)
        return found
