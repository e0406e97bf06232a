"""What a pass does when training is due: train, register, judge, record, keep in git, promote.

A Prefect flow with a task a step, after DVC's stages. Each step, done once more, ends in the same
state: a pass that was killed anywhere is simply done again. The alias that puts a model into use
moves after everything that explains it is on disk and in git.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import pandas as pd
from httpx import HTTPError
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import PrefectException
from prefect.task_runners import ThreadPoolTaskRunner

from flows.display import StageDisplay
from flows.dvc_graph import changed_stages, stage_graph
from flows.reproduce import SIDE_BY_SIDE, at_work, log_pipeline, run_stages
from flows.stores import is_passing
from flows.unfinished import assert_own_store, keep_version
from tasks.core import tracking
from tasks.core.errors import AffectGapError
from tasks.core.ledger import Ledger
from tasks.core.params import load_yaml
from tasks.core.paths import Paths
from tasks.core.terminal import Console

PROMOTED, REFUSED, WAITING = "promoted", "refused", "waiting"  # what the gate's record says
IN_USE = "in use already"
_RETRIES = 3
_RETRY_AFTER_S = 20

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Trained:
    """What came out of a pass: which version, what was decided, and the lines that say so."""

    version: int
    digest: str
    decision: str
    lines: list[str]


def train_and_judge(
    paths: Paths, pass_id: int, reason: str, console: Console, quiet: bool
) -> Trained:
    """Bring everything up to date, and put the new model into use where the gate lets it.

    Parameters
    ----------
    paths
        The project's paths.
    pass_id, reason
        The pass in the ledger, and why it trains.
    console, quiet
        Where progress is shown; True: lines instead of bars.

    Raises
    ------
    AffectGapError
        With the failing stage's or step's own line.
    """
    assert_own_store(paths)
    content = load_yaml(paths.params)
    graph = stage_graph(paths.root, None)
    changed = changed_stages(paths.root, None)
    tracking.close_dead_runs(paths)
    with at_work(paths, "retrain", content, console, quiet) as (run, display):

        @flow(
            name="retrain",
            task_runner=ThreadPoolTaskRunner(max_workers=SIDE_BY_SIDE),
            persist_result=False,
        )
        def retrain_flow() -> Trained:
            outcomes = run_stages(paths.root, graph, changed, display)
            log_pipeline(paths, run, outcomes)
            os.environ["AFFECTGAP_PROGRESS"] = "off"  # what follows is in this process: no lines
            return _Steps(paths, pass_id, reason, run, display).carry_out()

        with _in_one_line():
            trained: Trained = retrain_flow()
    return trained


@contextmanager
def _in_one_line() -> Iterator[None]:
    """Say in one line that the Prefect server went away, as when it is killed."""
    try:
        yield
    except (HTTPError, PrefectException) as error:
        told = " ".join(str(error).split()) or type(error).__name__
        raise AffectGapError(
            f"Prefect could not go on ({told[:200]}; see .prefect/server.log); run the same "
            "command again: it goes on where it was"
        ) from error


class _Steps:
    """The steps after the stages."""

    def __init__(
        self, paths: Paths, pass_id: int, reason: str, run: tracking.Run, display: StageDisplay
    ) -> None:
        self.paths = paths
        self.pass_id = pass_id
        self.reason = reason
        self.run = run
        self.display = display
        self.ledger = Ledger(paths.ledger)
        self.compared: tuple[int | None, str] = (None, "")  # with what, in which decision

    def carry_out(self) -> Trained:
        """Take every step; see the module."""
        from tasks.register.registry import champion, promote, register_challenger

        batches = trained_batches(self.paths, self.ledger)
        named = ", ".join(batches) or "none"
        details = {"pass": str(self.pass_id), "trigger": self.reason, "batches": named}
        model = self.paths.model("finetuned")
        version = self._step("register", register_challenger, self.paths, model, details)
        self.run.log_tags({"affectgap.version": str(version.number)})
        in_use = champion(self.paths)
        if in_use is not None and in_use.number == version.number:
            decision, lines = IN_USE, [f"version {version.number} (these weights) is in use"]
        else:
            decision, lines = self._step("judge", self._judge, version)
        lines += self._step("keep", self._keep, version, decision)
        if decision == PROMOTED:
            self._step("promote", promote, self.paths, version.number, *self.compared)
        self._step("close", self._close, version, batches, decision in (PROMOTED, IN_USE))
        self.run.log_tags({"affectgap.decision": decision})
        return Trained(version.number, version.digest, decision, lines)

    def _step(self, name: str, function: Callable[..., Answer], *arguments: Any) -> Answer:
        """Take a step as a task; what fails by a busy database or connection is tried again."""

        @task(
            name=name,
            task_run_name=name,
            cache_policy=NO_CACHE,
            persist_result=False,
            retries=_RETRIES,
            retry_delay_seconds=_RETRY_AFTER_S,
            retry_condition_fn=_is_passing,
        )
        def step() -> Answer:
            return function(*arguments)

        return step()

    def _judge(self, version: Any) -> tuple[str, list[str]]:
        """Let the gate decide, and write down what it decided."""
        from flows.promote import judge, line_of, record, why_waiting

        number = version.number
        if left := _was_left(self.paths, version):
            # Nothing but a person puts back what a person took out of use.
            return REFUSED, [f"version {number} is not put back into use: {left}"]
        # Not whatever was registered last: that may be another clone's, meanwhile.
        decision = judge(self.paths, version)
        action = record(self.paths, decision)
        rival = decision.champion.version if decision.champion else None
        self.compared = (rival, line_of(self.paths, decision, action))
        self.display.say(f"judged: version {number}: {action}")
        if action == PROMOTED:
            return action, [f"version {number} passed the gate and is put into use"]
        if action == WAITING:
            how = f"affectgap promote --approve {number} --by NAME --why REASON"
            reasons = [f"  {reason}" for reason in why_waiting(decision)]
            return action, [f"version {number} waits for a person:", *reasons, f"  {how}"]
        reasons = [f"  {reason}" for reason in decision.reasons]
        page = self.paths.decision(number) / "decision.html"
        said = [f"  {decision.notice}"] if decision.notice else []
        return action, [f"version {number} is refused:", *reasons, *said, f"  all rules: {page}"]

    def _keep(self, version: Any, decision: str) -> list[str]:
        from tasks.register.registry import assert_rival

        if decision == PROMOTED:
            assert_rival(self.paths, version.number, self.compared[0])
        why = f"{self.reason}\nPass {self.pass_id}"
        return keep_version(self.paths, version, decision, why, decision == PROMOTED)

    def _close(self, version: Any, batches: Sequence[str], in_use: bool) -> None:
        """Tell the ledger, last of all: what is not told is done again."""
        self.ledger.mark_trained(batches, self.pass_id, version.digest)
        mark = self.ledger.mark_promoted if in_use else self.ledger.mark_registered
        mark(version.digest, version.number)


def trained_batches(paths: Paths, ledger: Ledger) -> list[str]:
    """Return the accepted batches that are in the manifest, in the order of their arrival."""
    manifest = pd.read_parquet(paths.manifest, columns=["dataset", "batch"])
    batches, datasets = set(manifest["batch"]), set(manifest["dataset"])
    known = ledger.batches()
    accepted = known[known["state"] == "accepted"]
    # Not by its name: a whole data set that came a second time has another one (`mine.2`).
    whole = accepted["batch"].isin(ledger.whole()) & accepted["dataset"].isin(datasets)
    return [str(name) for name in accepted.loc[whole | accepted["batch"].isin(batches), "batch"]]


def _was_left(paths: Paths, version: Any) -> str:
    """Say who took a version out of use by rolling back, and why; "" where nobody did."""
    from tasks.register.records import read_records, rolled_back

    out = rolled_back(read_records(paths), version.number, version.digest)
    if out is None:
        return ""
    by, why = out["by"] or "somebody", out["why"] or "no reason given"
    return f"rolled back on {out['at'][:10]} by {by} ({why})"


def _is_passing(_task: object, _run: object, state: Any) -> bool:
    """Tell whether a failure may pass by itself: a locked database, a store that is away."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, BaseException) and is_passing(error)
