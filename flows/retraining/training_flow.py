"""The Prefect flow of a due training: train, register, evaluate, record, commit, promote.

DVC's stages come first, then one task per step. Every step is idempotent, so a pass that was killed
anywhere is simply run again. The alias that selects the model in use moves last, once everything
that explains it is on disk and in git.
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

from flows.ledger.ledger import Ledger
from flows.outages import is_temporary
from flows.pipeline.dvc_graph import changed_stages, stage_graph
from flows.pipeline.flow import MAX_PARALLEL_STAGES, log_pipeline, pipeline_session, run_stages
from flows.pipeline.stage_display import StageDisplay
from flows.registry.recovery import assert_store_has_champion, commit_version
from tasks.core.errors import AffectGapError
from tasks.core.params import load_yaml
from tasks.core.paths import Paths
from tasks.core.terminal import Console
from tasks.core.tracking import mlflow_runs

PROMOTED, REFUSED, WAITING = "promoted", "refused", "waiting"  # actions in promotions.csv
IN_USE = "in use already"
_RETRIES = 3
_RETRY_AFTER_S = 20

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class CycleResult:
    """Result of a pass: the version, the decision, and the lines to print."""

    version: int
    digest: str
    decision: str
    lines: list[str]


def run_training_flow(
    paths: Paths, pass_id: int, reason: str, console: Console, quiet: bool
) -> CycleResult:
    """Bring all stages up to date, and promote the new model if the gate allows it.

    `pass_id` and `reason` are the pass in the ledger and its trigger. `quiet` prints lines instead
    of bars. Raises AffectGapError with the failing stage's or step's message.
    """
    assert_store_has_champion(paths)
    content = load_yaml(paths.params)
    graph = stage_graph(paths.root, None)
    changed = changed_stages(paths.root, None)
    mlflow_runs.close_dead_runs(paths)
    with pipeline_session(paths, "retrain", content, console, quiet) as (run, display):

        @flow(
            name="retrain",
            task_runner=ThreadPoolTaskRunner(max_workers=MAX_PARALLEL_STAGES),
            persist_result=False,
        )
        def retrain_flow() -> CycleResult:
            outcomes = run_stages(paths.root, graph, changed, display)
            log_pipeline(paths, run, outcomes)
            os.environ["AFFECTGAP_PROGRESS"] = "off"  # the next steps run in this process
            return _Steps(paths, pass_id, reason, run, display).carry_out()

        with _in_one_line():
            trained: CycleResult = retrain_flow()
    return trained


@contextmanager
def _in_one_line() -> Iterator[None]:
    """Turn an outage of the Prefect server into a one-line error."""
    try:
        yield
    except (HTTPError, PrefectException) as error:
        message = " ".join(str(error).split()) or type(error).__name__
        raise AffectGapError(
            f"Prefect failed ({message[:200]}; see .prefect/server.log); run the same "
            "command again: it continues from there"
        ) from error


class _Steps:
    def __init__(
        self, paths: Paths, pass_id: int, reason: str, run: mlflow_runs.Run, display: StageDisplay
    ) -> None:
        self.paths = paths
        self.pass_id = pass_id
        self.reason = reason
        self.run = run
        self.display = display
        self.ledger = Ledger(paths.ledger)
        self.compared: tuple[int | None, str] = (None, "")  # rival's version, decision

    def carry_out(self) -> CycleResult:
        """Run every step; see the module."""
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
        return CycleResult(version.number, version.digest, decision, lines)

    def _step(self, name: str, function: Callable[..., Answer], *arguments: Any) -> Answer:
        """Run a step as a task; a busy database or lost connection is retried."""

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
        """Have the gate decide, and record its decision."""
        from flows.registry.model_table import approval_command
        from flows.registry.promotion import (
            judge_challenger,
            record_decision,
            record_id,
            why_waiting,
        )

        number = version.number
        if rollback := _was_left(self.paths, version):
            # Only a person may put back what a person rolled back.
            return REFUSED, [f"version {number} is not put back into use: {rollback}"]
        # Not the last registered version: another clone may have registered one meanwhile.
        decision = judge_challenger(self.paths, version)
        action = record_decision(self.paths, decision)
        rival = decision.champion.version if decision.champion else None
        self.compared = (rival, record_id(self.paths, decision, action))
        self.display.say(f"judged: version {number}: {action}")
        if action == PROMOTED:
            return action, [f"version {number} passed the gate and is put into use"]
        if action == WAITING:
            command = approval_command(number)
            reasons = [f"  {reason}" for reason in why_waiting(decision)]
            return action, [f"version {number} waits for a person:", *reasons, f"  {command}"]
        reasons = [f"  {reason}" for reason in decision.reasons]
        page = self.paths.decision(number) / "decision.html"
        notice = [f"  {decision.notice}"] if decision.notice else []
        return action, [f"version {number} is refused:", *reasons, *notice, f"  all rules: {page}"]

    def _keep(self, version: Any, decision: str) -> list[str]:
        from tasks.register.registry import assert_rival

        if decision == PROMOTED:
            assert_rival(self.paths, version.number, self.compared[0])
        message = f"{self.reason}\nPass {self.pass_id}"
        number, digest = version.number, version.digest
        return commit_version(self.paths, number, digest, decision, message, decision == PROMOTED)

    def _close(self, version: Any, batches: Sequence[str], in_use: bool) -> None:
        """Update the ledger last: a step that it does not record is run again."""
        self.ledger.mark_trained(batches, self.pass_id, version.digest)
        mark = self.ledger.mark_promoted if in_use else self.ledger.mark_registered
        mark(version.digest, version.number)


def trained_batches(paths: Paths, ledger: Ledger) -> list[str]:
    """Return the accepted batches that are in the manifest, in order of arrival."""
    manifest = pd.read_parquet(paths.manifest, columns=["dataset", "batch"])
    in_manifest, datasets = set(manifest["batch"]), set(manifest["dataset"])
    batches = ledger.batches()
    accepted = batches[batches["state"] == "accepted"]
    # Not by its name: a whole data set that came a second time has another one (`mine.2`).
    complete = accepted["batch"].isin(ledger.whole()) & accepted["dataset"].isin(datasets)
    trained = complete | accepted["batch"].isin(in_manifest)
    return [str(name) for name in accepted.loc[trained, "batch"]]


def _was_left(paths: Paths, version: Any) -> str:
    """Return who rolled a version back, and why; "" if nobody did."""
    from tasks.register.promotion_log import read_records, rolled_back

    record = rolled_back(read_records(paths), version.number, version.digest)
    if record is None:
        return ""
    by, why = record["by"] or "somebody", record["why"] or "no reason given"
    return f"rolled back on {record['at'][:10]} by {by} ({why})"


def _is_passing(_task: object, _run: object, state: Any) -> bool:
    """Return whether a failure is temporary: a locked database or a store that is away."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, BaseException) and is_temporary(error)
