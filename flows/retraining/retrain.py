"""`affectgap retrain`: one pass over the inbox; `affectgap serve` runs the same on a schedule.

A pass imports ready batches, reports their drift, asks the policy, and if training is due, trains,
evaluates and promotes (flows/retraining/training_flow.py). Only one pass runs at a time; one that
died is closed and repeated.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from flows.ledger.ledger import Ledger
from flows.outages import outage_message
from flows.pipeline.dvc_repair import repair_after_crash, try_lock
from flows.registry.recovery import complete_promotion
from flows.retraining import trigger_policy
from flows.retraining.backoff import Failures
from tasks.core.errors import AffectGapError, BusyError, ParamsError
from tasks.core.files import alone
from tasks.core.params import load_section
from tasks.core.paths import Paths
from tasks.core.terminal import Console

ASKED = "asked for (--now)"
INBOX = "the inbox"  # trigger of a pass that ended before it trained
TRAINED, WAITED = "trained", "waiting"  # states of a pass that trained
NOTHING_TO_DO = "nothing_to_do"


def retrain(
    paths: Paths, console: Console, quiet: bool, now: bool = False, scheduled: bool = False
) -> list[str]:
    """Run one pass, and return lines on what was done and decided.

    `now` trains even if the policy does not ask for it. A `scheduled` pass backs off after a
    failure, as `Failures.held_back` says. `quiet` prints lines instead of bars.

    Raises BusyError while another pass, run or study is running here, and otherwise AffectGapError
    with the failing step's message.
    """
    with pass_lock(paths):
        return _RetrainCycle(paths, Ledger(paths.ledger), console, quiet).carry_out(now, scheduled)


def check_params(paths: Paths) -> None:
    """Validate every section that only the end of a pass needs; raises ParamsError."""
    from flows.intake.settings import Params as IntakeParams
    from flows.intake.settings import check_intake_dataset
    from tasks.drift.settings import Params as DriftParams
    from tasks.gate.settings import Params as PromoteParams
    from tasks.ingest.stage import Params as IngestParams

    load_section(paths.params, "retrain", trigger_policy.Params)
    load_section(paths.params, "promote", PromoteParams)
    load_section(paths.params, "drift", DriftParams)
    intake = load_section(paths.params, "intake", IntakeParams)
    ingest = load_section(paths.params, "ingest", IngestParams)
    check_intake_dataset(intake, ingest.datasets, paths.params)


class _RetrainCycle:
    """One pass; the caller holds the lock."""

    def __init__(self, paths: Paths, ledger: Ledger, console: Console, quiet: bool) -> None:
        self.paths = paths
        self.ledger = ledger
        self.console = console
        self.quiet = quiet
        self.failures = Failures(paths)
        self.failures_before = Failures(paths, before_training=True)

    def carry_out(self, now: bool, scheduled: bool) -> list[str]:
        """Run the pass; see `retrain`."""
        if scheduled and (reason := self.failures_before.held_back(datetime.now(UTC))):
            return [reason]
        with self._recording_failures(scheduled):
            reason, lines = self._import_inbox(now, scheduled)
        return self._train(reason, scheduled) if reason else lines

    def _import_inbox(self, now: bool, scheduled: bool) -> tuple[str, list[str]]:
        """Import the inbox; return the reason to train, or "" and lines that say why not."""
        from flows.drift.reports import report_drift_of_waiting
        from flows.intake.intake import intake_inbox

        check_params(self.paths)
        for number in self.ledger.close_dead_passes(alone=True):
            self.console.say(f"closed: pass {number}, which died")
        repaired = self._repair()
        ended, trigger = self._last_pass()
        outcomes = intake_inbox(self.paths, self.console.say)
        moved = [batch for batch in outcomes if batch.state != "not_ready"]
        report_drift_of_waiting(self.paths, self.console.say)
        if ended == "died":  # a pass killed at its end left a run open, but nothing to train
            self._close_dead_runs()
        repeat_request = ended == "died" and trigger == ASKED
        reason = ASKED if now or repeat_request else trigger_reason(self.paths, self.ledger)
        if reason and scheduled and (wait := self.failures.held_back(datetime.now(UTC))):
            return "", [wait]
        if not reason:
            line = f"training: {distance_to_trigger(self.paths, self.ledger)}"
            if moved:
                self.ledger.end_pass(self.ledger.start_pass(INBOX), NOTHING_TO_DO, line, None)
            return "", [line]
        if not repaired and not self._repair():
            raise BusyError(f"{self.paths.root}: a run or a study is at work here")
        return reason, []

    @contextmanager
    def _recording_failures(self, scheduled: bool) -> Iterator[None]:
        """Record a failure before training, once per failure and not per retry."""
        try:
            yield
        except Exception as error:
            message = _one_line(error)
            if isinstance(error, BusyError):
                raise BusyError(message) from None
            with self._report_if_it_fails("a pass that failed could not be recorded"):
                new = self.failures_before.remember(error, message, datetime.now(UTC))
                if new and not isinstance(error, ParamsError):  # invalid params start no pass
                    self.ledger.end_pass(self.ledger.start_pass(INBOX), "failed", message, None)
            if scheduled and isinstance(error, OSError):  # the command line formats it by itself
                raise AffectGapError(message) from error
            raise
        self.failures_before.forget()

    def _close_dead_runs(self) -> None:
        from tasks.core.tracking.mlflow_runs import close_dead_runs

        if closed := close_dead_runs(self.paths):
            self.console.say(f"closed: {closed} runs in MLflow of processes that are gone")

    def _repair(self) -> bool:
        """Repair what a crash left, before anything is compared with the model in use.

        Returns False while a run is active here: dvc.lock may be half written, and nothing is
        committed.
        """
        with try_lock(self.paths) as free:
            if free:
                for line in repair_after_crash(self.paths.root):
                    self.console.say(f"mended: {line}")
                for line in complete_promotion(self.paths):
                    self.console.say(line)
        return free

    def _train(self, reason: str, scheduled: bool) -> list[str]:
        from flows.retraining.training_flow import WAITING, run_training_flow

        self.console.say(f"training: {reason}")
        number = self.ledger.start_pass(reason)
        not_closed = f"pass {number} could not be closed"
        try:
            done = run_training_flow(self.paths, number, reason, self.console, self.quiet)
        except Exception as error:
            message = _one_line(error)
            if isinstance(error, BusyError):  # no failure: the schedule repeats it
                with self._report_if_it_fails(not_closed):
                    self.ledger.end_pass(number, NOTHING_TO_DO, message, None)
                raise BusyError(message) from None
            with self._report_if_it_fails(not_closed):
                self.ledger.end_pass(number, "failed", message, None)
                self.failures.remember(error, message, datetime.now(UTC))
            raise
        except BaseException as error:  # Ctrl-C, SIGTERM
            with self._report_if_it_fails(not_closed):
                self.ledger.end_pass(number, "died", "it was stopped", None)
            if scheduled or isinstance(error, KeyboardInterrupt):
                raise  # handled by Prefect or the command line
            raise AffectGapError("stopped; `affectgap retrain` continues from there") from None
        state = WAITED if done.decision == WAITING else TRAINED
        self.ledger.end_pass(number, state, done.decision, done.version)
        self.failures.forget()
        return done.lines

    @contextmanager
    def _report_if_it_fails(self, message: str) -> Iterator[None]:
        """Do not let a bookkeeping failure (a full disk) mask the original error."""
        try:
            yield
        except (AffectGapError, OSError) as error:
            self.console.say(f"{message}: {error}")

    def _last_pass(self) -> tuple[str, str]:
        """Return state and trigger of the last pass that began to train, "" without one."""
        passes = self.ledger.passes()
        passes = passes[(passes["state"] != NOTHING_TO_DO) & (passes["trigger"] != INBOX)]
        if passes.empty:
            return "", ""
        return str(passes.iloc[-1]["state"]), str(passes.iloc[-1]["trigger"])


def trigger_reason(paths: Paths, ledger: Ledger) -> str:
    """Return the policy's reason to train now, "" if there is none."""
    from tasks.drift.settings import Params as DriftParams

    untrained, batches = trigger_policy.untrained_images(paths, ledger), ledger.batches()
    effects = batches.loc[batches["batch"].isin(untrained["batch"]), "drift"].dropna()
    return trigger_policy.training_reason(
        untrained,
        last_training(ledger),
        datetime.now(UTC),
        load_section(paths.params, "retrain", trigger_policy.Params),
        float(effects.abs().max()) if len(effects) else None,
        load_section(paths.params, "drift", DriftParams).large_effect,
    )


def distance_to_trigger(paths: Paths, ledger: Ledger) -> str:
    """Describe how far the policy is from a training."""
    params = load_section(paths.params, "retrain", trigger_policy.Params)
    untrained, last = trigger_policy.untrained_images(paths, ledger), last_training(ledger)
    images = f"{len(untrained)} of {params.new_images} new pictures"
    children = (
        f"{trigger_policy.count_children(untrained, params)} of {params.new_children} new children"
    )
    days = (datetime.now(UTC) - last).days if last else 0
    return f"not due: {images}, {children}, {max(0, days)} of {params.max_days:g} days"


def last_training(ledger: Ledger) -> datetime | None:
    """Return when a pass last trained; None if none ever did."""
    passes = ledger.passes()
    ended = passes.loc[passes["state"].isin([TRAINED, WAITED]), "ended_at"]
    if ended.empty:
        return None
    at = datetime.fromisoformat(str(ended.iloc[-1]))
    return at if at.tzinfo else at.replace(tzinfo=UTC)


@contextmanager
def pass_lock(paths: Paths) -> Iterator[None]:
    """Hold the lock of a pass; raises BusyError while another pass or command is running."""
    busy = f"{paths.root}: another pass is at work here (`affectgap status` shows it)"
    with alone(paths.at("work/retrain.lock"), busy):
        yield


def _one_line(error: Exception) -> str:
    """Return an error as one line, for the ledger and `affectgap status`."""
    if outage := outage_message(error):
        return outage
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    first, *_ = str(error).strip().splitlines() or [type(error).__name__]
    return first
