"""`affectgap retrain`: one pass over the inbox; `affectgap serve` does the same on a schedule.

Take in what is ready, say how it differs, ask the policy, and where it says so train, judge and
promote (flows/one_pass.py). One pass at a time; one that died is closed and done again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from flows import policy
from flows.dvc_files import mend_after_a_crash
from flows.failures import Failures
from flows.mending import if_alone
from flows.stores import told_as_away
from flows.unfinished import finish_promotion
from tasks.core.errors import AffectGapError, ParamsError, UserError
from tasks.core.ledger import Ledger
from tasks.core.locks import alone
from tasks.core.params import load_section
from tasks.core.paths import Paths
from tasks.core.terminal import Console

ASKED = "asked for (--now)"
INBOX = "the inbox"  # trigger of a pass that ended before it trained
TRAINED, WAITED = "trained", "waiting"  # states of a pass that trained
NOTHING_TO_DO = "nothing_to_do"
_AT_WORK = "at work here"  # what every command says that finds another one


class BusyError(UserError):
    """Another pass, run or study is at work here."""


def retrain(
    paths: Paths, console: Console, quiet: bool, now: bool = False, scheduled: bool = False
) -> list[str]:
    """Do one pass.

    Parameters
    ----------
    paths
        The project's paths.
    console, quiet
        Where progress is shown; True: lines instead of bars.
    now
        True: train, whatever the policy says.
    scheduled
        True: nobody waits for it. What failed before by a mistake in the data or params is not
        done again before something changed or a day has passed.

    Returns
    -------
    list of str
        What was done and decided.

    Raises
    ------
    BusyError
        One line, where another pass, run or study is at work here.
    AffectGapError
        With the failing step's own line.
    """
    with alone_here(paths):
        return _Pass(paths, Ledger(paths.ledger), console, quiet).carry_out(now, scheduled)


def check_params(paths: Paths) -> None:
    """Read every section that only the end of a pass needs; raises ParamsError with one line."""
    from tasks.drift.settings import Params as DriftParams
    from tasks.gate.settings import Params as PromoteParams
    from tasks.ingest.inbox.settings import Params as IntakeParams
    from tasks.ingest.inbox.settings import require_taker
    from tasks.ingest.stage import Params as IngestParams

    load_section(paths.params, "retrain", policy.Params)
    load_section(paths.params, "promote", PromoteParams)
    load_section(paths.params, "drift", DriftParams)
    intake = load_section(paths.params, "intake", IntakeParams)
    ingest = load_section(paths.params, "ingest", IngestParams)
    require_taker(intake, ingest.datasets, paths.params)


class _Pass:
    """One pass; the lock is held."""

    def __init__(self, paths: Paths, ledger: Ledger, console: Console, quiet: bool) -> None:
        self.paths = paths
        self.ledger = ledger
        self.console = console
        self.quiet = quiet
        self.failures = Failures(paths)
        self.failures_before = Failures(paths, before_training=True)

    def carry_out(self, now: bool, scheduled: bool) -> list[str]:
        """See `retrain`."""
        if scheduled and (held := self.failures_before.held_back(datetime.now(UTC))):
            return [held]
        with self._failing_before_training(scheduled):
            reason, lines = self._look(now, scheduled)
        return self._train(reason, scheduled) if reason else lines

    def _look(self, now: bool, scheduled: bool) -> tuple[str, list[str]]:
        """Take in the inbox; return the reason to train, or "" and the lines that say why not."""
        from flows.advice import advise_on_waiting
        from flows.intake import take_in_inbox

        check_params(self.paths)
        for number in self.ledger.close_dead_passes(alone=True):
            _say(self.console, [f"closed: pass {number}, which died"])
        mended = self._mend()
        ended, asked = self._last_pass()
        taken = take_in_inbox(self.paths, self._say_line)
        moved = [one for one in taken if one.state != "not_ready"]
        advise_on_waiting(self.paths, self._say_line)
        if ended == "died":  # killed at its very end, it left a run open, and nothing to train
            self._close_dead_runs()
        asked_again = ended == "died" and asked == ASKED
        reason = ASKED if now or asked_again else why_due(self.paths, self.ledger)
        if reason and scheduled and (held := self.failures.held_back(datetime.now(UTC))):
            return "", [held]
        if not reason:
            line = f"training: {what_is_missing(self.paths, self.ledger)}"
            if moved:
                self.ledger.end_pass(self.ledger.start_pass(INBOX), NOTHING_TO_DO, line, None)
            return "", [line]
        if not mended and not self._mend():
            raise BusyError(f"{self.paths.root}: a run or a study is {_AT_WORK}")
        return reason, []

    @contextmanager
    def _failing_before_training(self, scheduled: bool) -> Iterator[None]:
        """Write down what a pass failed of before it trained: once, however often it is tried."""
        try:
            yield
        except Exception as error:
            told = _in_a_line(error)
            if _is_busy(error):
                raise BusyError(told) from None
            with self._told_where_it_fails("a pass that failed could not be written down"):
                new = self.failures_before.remember(error, told, datetime.now(UTC))
                if new and not isinstance(error, ParamsError):  # a mistake there begins no pass
                    self.ledger.end_pass(self.ledger.start_pass(INBOX), "failed", told, None)
            if scheduled and isinstance(error, OSError):  # the command line says it by itself
                raise AffectGapError(told) from error
            raise
        self.failures_before.forget()

    def _say_line(self, line: str) -> None:
        _say(self.console, [line])

    def _close_dead_runs(self) -> None:
        from tasks.core.tracking import close_dead_runs  # imports MLflow, which takes seconds

        if closed := close_dead_runs(self.paths):
            _say(self.console, [f"closed: {closed} runs in MLflow of processes that are gone"])

    def _mend(self) -> bool:
        """End what a crash left, before anything is judged against what is in use.

        Returns False where a run is at work here: dvc.lock may be half written, and no commit.
        """
        with if_alone(self.paths) as free:
            if free:
                for line in mend_after_a_crash(self.paths.root):
                    _say(self.console, [f"mended: {line}"])
                _say(self.console, finish_promotion(self.paths))
        return free

    def _train(self, reason: str, scheduled: bool) -> list[str]:
        """Train, judge and promote, and write down how it ended."""
        from flows.one_pass import WAITING, train_and_judge

        _say(self.console, [f"training: {reason}"])
        number = self.ledger.start_pass(reason)
        not_closed = f"pass {number} could not be closed"
        try:
            done = train_and_judge(self.paths, number, reason, self.console, self.quiet)
        except Exception as error:
            told = _in_a_line(error)
            if _is_busy(error):  # it comes again by itself: no failure
                with self._told_where_it_fails(not_closed):
                    self.ledger.end_pass(number, NOTHING_TO_DO, told, None)
                raise BusyError(told) from None
            with self._told_where_it_fails(not_closed):
                self.ledger.end_pass(number, "failed", told, None)
                self.failures.remember(error, told, datetime.now(UTC))
            raise
        except BaseException as error:  # Ctrl-C, SIGTERM
            with self._told_where_it_fails(not_closed):
                self.ledger.end_pass(number, "died", "it was stopped", None)
            if scheduled or isinstance(error, KeyboardInterrupt):
                raise  # Prefect, or the command line, knows what it is
            raise AffectGapError("stopped; `affectgap retrain` goes on where it was") from None
        state = WAITED if done.decision == WAITING else TRAINED
        self.ledger.end_pass(number, state, done.decision, done.version)
        self.failures.forget()
        return done.lines

    @contextmanager
    def _told_where_it_fails(self, told: str) -> Iterator[None]:
        """Let how a pass ended be what is raised, also where it cannot be written (a full disk)."""
        try:
            yield
        except (AffectGapError, OSError) as also:
            _say(self.console, [f"{told}: {also}"])

    def _last_pass(self) -> tuple[str, str]:
        """Return state and trigger of the last pass that set about a training, "" without one."""
        passes = self.ledger.passes()
        passes = passes[(passes["state"] != NOTHING_TO_DO) & (passes["trigger"] != INBOX)]
        if passes.empty:
            return "", ""
        return str(passes.iloc[-1]["state"]), str(passes.iloc[-1]["trigger"])


def why_due(paths: Paths, ledger: Ledger) -> str:
    """Return the policy's reason to train now, "" where there is none."""
    from tasks.drift.settings import Params as DriftParams

    untrained, batches = policy.untrained_pictures(paths, ledger), ledger.batches()
    effects = batches.loc[batches["batch"].isin(untrained["batch"]), "drift"].dropna()
    return policy.due(
        untrained,
        last_training(ledger),
        datetime.now(UTC),
        load_section(paths.params, "retrain", policy.Params),
        float(effects.abs().max()) if len(effects) else None,
        load_section(paths.params, "drift", DriftParams).large_effect,
    )


def what_is_missing(paths: Paths, ledger: Ledger) -> str:
    """Say how far from a training the policy is."""
    params = load_section(paths.params, "retrain", policy.Params)
    untrained, last = policy.untrained_pictures(paths, ledger), last_training(ledger)
    pictures = f"{len(untrained)} of {params.new_pictures} new pictures"
    children = f"{policy.count_children(untrained, params)} of {params.new_children} new children"
    days = (datetime.now(UTC) - last).days if last else 0
    return f"not due: {pictures}, {children}, {max(0, days)} of {params.days:g} days"


def last_training(ledger: Ledger) -> datetime | None:
    """Return when a pass last trained; None where none ever did."""
    passes = ledger.passes()
    ended = passes.loc[passes["state"].isin([TRAINED, WAITED]), "ended_at"]
    if ended.empty:
        return None
    at = datetime.fromisoformat(str(ended.iloc[-1]))
    return at if at.tzinfo else at.replace(tzinfo=UTC)


@contextmanager
def alone_here(paths: Paths) -> Iterator[None]:
    """Hold the lock of a pass; raises BusyError where another pass or command is at work here."""
    busy = f"{paths.root}: another pass is at work here (`affectgap status` shows it)"
    try:
        with alone(paths.at("work/retrain.lock"), busy):
            yield
    except UserError as error:
        if _is_busy(error):
            raise BusyError(str(error)) from None
        raise


def _in_a_line(error: Exception) -> str:
    """Say what went wrong in one line, for the ledger and `affectgap status`."""
    if told := told_as_away(error):
        return told
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    told, *_ = str(error).strip().splitlines() or [type(error).__name__]
    return told


def _is_busy(error: Exception) -> bool:
    return isinstance(error, UserError) and _AT_WORK in str(error)


def _say(console: Console, lines: list[str]) -> None:
    for line in lines:
        console.say(line)
