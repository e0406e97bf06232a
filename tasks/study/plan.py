"""The plan of a study: decided rounds and runs to train next, as a pure function of the results.

There are three rounds, each starting from the winner before. A round trains its candidates in
rungs, the last of which has all epochs and all seeds, and then chooses (see
`tasks.study.selection_rule`). The same params and results give the same plan, so that an
interrupted study resumes and a finished one is replayed without training.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from tasks.core.errors import UserError
from tasks.study.candidates import ROUNDS, Arm, Recipe, Run, arms_of, key_of, run_of
from tasks.study.results import Result, Score, score_of
from tasks.study.selection_rule import Choice, Rung, choose, rungs_of, survivors
from tasks.study.settings import Params

FINALISTS = 2  # at least this many candidates of a round are trained to the end


@dataclass(frozen=True)
class RungResult:
    """Scores of the candidates after a rung.

    Attributes
    ----------
    scores
        By name, without candidates whose training failed.
    survivors
        Names of the candidates that go on; of the last rung, all that it judged.
    """

    rung: Rung
    scores: Mapping[str, Score]
    survivors: tuple[str, ...]


@dataclass(frozen=True)
class Decision:
    """The outcome of a round.

    Attributes
    ----------
    arms
        All candidates, in the order of params.
    before
        Name of the incumbent; "" in the first round.
    rungs
        The rungs that were trained; the last has the scores that decide.
    failed
        Reason by name for candidates whose training could not go on.
    runs
        All runs that it used, those of earlier rounds included.
    """

    round: str
    arms: tuple[Arm, ...]
    before: str
    rungs: tuple[RungResult, ...]
    failed: Mapping[str, str]
    choice: Choice
    runs: tuple[Run, ...]

    @property
    def chosen(self) -> Arm:
        """Return the candidate that the next round starts from."""
        return next(arm for arm in self.arms if arm.name == self.choice.name)

    @property
    def why(self) -> str:
        """Return the reason for the choice, as one sentence."""
        return self.choice.why


@dataclass(frozen=True)
class Progress:
    """State of a study.

    Attributes
    ----------
    decisions
        The rounds that are decided.
    wanted
        The runs to train next, in the order of params; empty when the study is finished.
    runs
        Every run so far, `wanted` included, each once and in the order of the plan.
    """

    decisions: tuple[Decision, ...]
    wanted: tuple[Run, ...]
    runs: tuple[Run, ...]


def progress(
    settings: Params,
    train: Recipe,
    results: Mapping[str, Result],
    holds: Callable[[Run], bool] = lambda run: True,
) -> Progress:
    """Play the rounds as far as the results of finished runs, by key, go.

    `holds` checks that the result with a run's key belongs to exactly this run, since a run of
    another recipe has the same key. A run whose result does not hold is wanted again.

    Raises
    ------
    UserError
        If every candidate of a round failed.
    """
    decisions: list[Decision] = []
    runs: dict[str, Run] = {}
    before: Arm | None = None
    for name in ROUNDS:
        arms = arms_of(name, settings, train, before)
        outcome = _Round(name, arms, before, settings, _RunStore(results, holds, runs)).play()
        if not isinstance(outcome, Decision):
            return Progress(tuple(decisions), tuple(outcome), tuple(runs.values()))
        decisions.append(outcome)
        before = outcome.chosen
    return Progress(tuple(decisions), (), tuple(runs.values()))


def decide(
    name: str, before: Arm | None, settings: Params, train: Recipe, results: Mapping[str, Result]
) -> Decision:
    """Play a single round, from the winner of the round before (None for the first).

    Raises
    ------
    KeyError
        With the key of the first result that is missing.
    UserError
        If every candidate failed.
    """
    arms = arms_of(name, settings, train, before)
    store = _RunStore(results, lambda run: True, {})
    outcome = _Round(name, arms, before, settings, store).play()
    if not isinstance(outcome, Decision):
        raise KeyError(outcome[0].key)
    return outcome


def winning_runs(settings: Params, decisions: Iterable[Decision]) -> list[Run]:
    """Return the winner's full-length runs, one per seed; their models are tested."""
    *_, last = decisions
    return [run_of(last.chosen, seed, settings.epochs) for seed in settings.used_seeds]


def epochs_trained(runs: Iterable[Run]) -> int:
    """Count epochs; of the runs of one candidate and seed, which resume each other, the longest."""
    longest: dict[str, int] = {}
    for run in runs:
        candidate_and_seed = run.key.rpartition("-e")[0]
        longest[candidate_and_seed] = max(longest.get(candidate_and_seed, 0), run.until)
    return sum(longest.values())


def epochs_of_grid(settings: Params, decisions: Iterable[Decision]) -> int:
    """Count the epochs of the same rounds with every candidate and seed trained to the end."""
    slugs = {arm.slug for decision in decisions for arm in decision.arms}
    return len(slugs) * len(settings.used_seeds) * settings.epochs


@dataclass(frozen=True)
class _RunStore:
    """Results, and every run that the rounds asked for so far."""

    results: Mapping[str, Result]
    holds: Callable[[Run], bool]
    runs: dict[str, Run]

    def lacks(self, run: Run) -> bool:
        """Return whether a run has no result, or one that does not hold."""
        return run.key not in self.results or not self.holds(run)


class _Round:
    """One round, played rung by rung as far as the results go."""

    def __init__(
        self,
        name: str,
        arms: list[Arm],
        before: Arm | None,
        settings: Params,
        store: _RunStore,
    ) -> None:
        self.name = name
        self.arms = arms
        self.incumbent = "" if before is None else _name_of(before, arms)
        self.settings = settings
        self.store = store
        self.runs: list[Run] = []
        self.failed: dict[str, str] = {}
        self.rungs: list[RungResult] = []

    def play(self) -> Decision | list[Run]:
        """Return the decision, or the runs that are missing for the next one."""
        alive = list(self.arms)
        *early, last = rungs_of(self.settings)
        for rung in early:
            # The incumbent is trained to the end already: it goes on at no cost.
            judged = [arm for arm in alive if arm.name != self.incumbent]
            if len(alive) <= FINALISTS or len(judged) < 2:
                break
            missing = self._missing(judged, rung)
            if missing:
                return missing
            alive = self._after(rung, judged)
        missing = self._missing(alive, last)
        return missing or self._decision(alive, last)

    def _missing(self, arms: list[Arm], rung: Rung) -> list[Run]:
        """Record a rung's runs, and return those without a result."""
        runs = [self._run(arm, seed, rung.until) for arm in arms for seed in rung.seeds]
        # A run that an earlier round trained keeps that round's name.
        runs = [self.store.runs.setdefault(run.key, run) for run in runs]
        self.runs += runs
        return [run for run in runs if self.store.lacks(run)]

    def _run(self, arm: Arm, seed: int, until: int) -> Run:
        """Return a run that resumes the longest of this candidate and seed so far."""
        for rung_result in reversed(self.rungs):
            if seed in rung_result.rung.seeds and arm.name in rung_result.scores:
                return run_of(arm, seed, until, key_of(arm, seed, rung_result.rung.until))
        return run_of(arm, seed, until)

    def _scores(self, arms: list[Arm], rung: Rung) -> dict[str, Score]:
        """Score the candidates; those whose training failed are recorded in `failed` instead."""
        scores = {}
        for arm in arms:
            results = [self.store.results[key_of(arm, seed, rung.until)] for seed in rung.seeds]
            reasons = [result.failed for result in results if result.failed]
            if reasons:
                self.failed[arm.name] = reasons[0]
            else:
                scores[arm.name] = score_of(results, self.settings)
        return scores

    def _after(self, rung: Rung, judged: list[Arm]) -> list[Arm]:
        """Return the candidates that survive a rung."""
        scores = self._scores(judged, rung)
        going = {self.incumbent}
        if scores:
            # The rule's choice at this rung goes on, so that a smaller network within one standard
            # error is not lost to larger ones.
            first = "" if self.incumbent else choose(scores, self.settings.protocol, "").name
            going |= {first}
            others = {name: score.mean for name, score in scores.items() if name != first}
            assert self.settings.halving is not None  # only the last rung exists without it
            going |= set(survivors(others, self.settings.halving.reduction_factor))
        alive = [arm for arm in self.arms if arm.name in going]
        survivor_names = tuple(arm.name for arm in alive if arm.name != self.incumbent)
        self.rungs.append(RungResult(rung, scores, survivor_names))
        return alive

    def _decision(self, alive: list[Arm], last: Rung) -> Decision:
        scores = self._scores(alive, last)
        if not scores:
            name, reason = next(iter(self.failed.items()))
            raise UserError(f"study.{self.name}: no training went to the end; {name}: {reason}")
        choice = choose(scores, self.settings.protocol, self.incumbent)
        self.rungs.append(RungResult(last, scores, tuple(scores)))
        return Decision(
            self.name,
            tuple(self.arms),
            self.incumbent,
            tuple(self.rungs),
            dict(self.failed),
            choice,
            tuple(self.runs),
        )


def _name_of(before: Arm, arms: list[Arm]) -> str:
    """Return the name of the incumbent in this round; "" if it does not compete."""
    return next((arm.name for arm in arms if arm.slug == before.slug), "")
