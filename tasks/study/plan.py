"""What a study does next, and what it has decided: a function of params and results alone.

Three rounds, each starting from the winner before. A round trains its arms in rungs (see
`tasks.study.halving`), the last of which has all epochs and all seeds, and then chooses (see
`tasks.study.one_standard_error`). Asked again with the same results it answers the same, so that a
study that was stopped goes on, and one that is finished is replayed without training.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from tasks.core.errors import UserError
from tasks.study.arms import ROUNDS, Arm, Recipe, Run, arms_of, key_of, run_of
from tasks.study.halving import Rung, rungs_of, survivors
from tasks.study.one_standard_error import Choice, choose
from tasks.study.results import Result
from tasks.study.scores import Score, score_of
from tasks.study.settings import Params

FINALISTS = 2  # at least so many arms of a round are trained to the end


@dataclass(frozen=True)
class Stand:
    """Where the arms stand after a rung.

    Attributes
    ----------
    rung
        Its epochs and seeds.
    scores
        Arm's name to its score; an arm whose training failed is not there.
    kept
        Names of the arms that go on; of the last rung, those that it judged.
    """

    rung: Rung
    scores: Mapping[str, Score]
    kept: tuple[str, ...]


@dataclass(frozen=True)
class Decision:
    """What a round found.

    Attributes
    ----------
    round
        `backbones`, `losses` or `optimisers`.
    arms
        All that it compared, in the order of params.
    before
        The name of the arm that the round before ended with; "" in the first.
    stands
        One a rung that was trained; the last has the scores that decide.
    failed
        Name to the reason for arms whose training could not go on.
    choice
        Which arm was chosen, and why.
    runs
        All runs that it looked at, those of earlier rounds included.
    """

    round: str
    arms: tuple[Arm, ...]
    before: str
    stands: tuple[Stand, ...]
    failed: Mapping[str, str]
    choice: Choice
    runs: tuple[Run, ...]

    @property
    def chosen(self) -> Arm:
        """Return the arm that the next round starts from."""
        return next(arm for arm in self.arms if arm.name == self.choice.name)

    @property
    def why(self) -> str:
        """Say in a sentence why it was chosen."""
        return self.choice.why


@dataclass(frozen=True)
class Progress:
    """How far a study is.

    Attributes
    ----------
    decisions
        The rounds that are decided.
    wanted
        What has to be trained next; empty when the study is finished.
    runs
        Every run so far, those that are wanted included, each once and in the order of the plan.
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
    """Play the rounds as far as the results go.

    Parameters
    ----------
    settings, train
        Sections `study` and `train` of params.yaml.
    results
        What finished runs found, by key; runs that the plan does not ask for are of no matter.
    holds
        Whether the result of that key is this very run's: one of another recipe has the same key.
        Asked before a result is looked at; what does not hold is wanted again.

    Returns
    -------
    Progress
        With the runs that have to be trained before anything more can be decided, in the order of
        params; none when the study is finished.

    Raises
    ------
    UserError
        Where every arm of a round failed.
    """
    decisions: list[Decision] = []
    runs: dict[str, Run] = {}
    before: Arm | None = None
    for name in ROUNDS:
        arms = arms_of(name, settings, train, before)
        outcome = _Round(name, arms, before, settings, _Known(results, holds, runs)).play()
        if not isinstance(outcome, Decision):
            return Progress(tuple(decisions), tuple(outcome), tuple(runs.values()))
        decisions.append(outcome)
        before = outcome.chosen
    return Progress(tuple(decisions), (), tuple(runs.values()))


def decide(
    name: str, before: Arm | None, settings: Params, train: Recipe, results: Mapping[str, Result]
) -> Decision:
    """Play one round alone, from the arm that a round before ended with.

    Parameters
    ----------
    name
        `backbones`, `losses` or `optimisers`.
    before
        What the round starts from, trained to the end; None for the first.
    settings, train, results
        As in `progress`.

    Returns
    -------
    Decision
        What the round found.

    Raises
    ------
    KeyError
        Where a result that the round asks for is missing; its key.
    UserError
        Where every arm failed.
    """
    arms = arms_of(name, settings, train, before)
    outcome = _Round(name, arms, before, settings, _Known(results, lambda run: True, {})).play()
    if not isinstance(outcome, Decision):
        raise KeyError(outcome[0].key)
    return outcome


def winning_runs(settings: Params, decisions: Iterable[Decision]) -> list[Run]:
    """Return the winner's runs that went to the end, one a seed; their models are tested."""
    *_, last = decisions
    return [run_of(last.chosen, seed, settings.epochs) for seed in settings.used_seeds]


def epochs_trained(runs: Iterable[Run]) -> int:
    """Count epochs: runs of one arm and seed go on from each other, so that the longest counts."""
    longest: dict[str, int] = {}
    for run in runs:
        home = run.key.rpartition("-e")[0]
        longest[home] = max(longest.get(home, 0), run.until)
    return sum(longest.values())


def epochs_of_grid(settings: Params, decisions: Iterable[Decision]) -> int:
    """Count the epochs of the same rounds with every arm and seed trained to the end."""
    slugs = {arm.slug for decision in decisions for arm in decision.arms}
    return len(slugs) * len(settings.used_seeds) * settings.epochs


@dataclass(frozen=True)
class _Known:
    """What a round is told: results, whether they hold, and the runs that were asked for so far."""

    results: Mapping[str, Result]
    holds: Callable[[Run], bool]
    runs: dict[str, Run]

    def lacks(self, run: Run) -> bool:
        """Whether a run has no result, or one that does not hold."""
        return run.key not in self.results or not self.holds(run)


class _Round:
    """One round, played rung by rung as far as the results go."""

    def __init__(
        self,
        name: str,
        arms: list[Arm],
        before: Arm | None,
        settings: Params,
        known: _Known,
    ) -> None:
        self.name = name
        self.arms = arms
        self.held = "" if before is None else _name_of(before, arms)
        self.settings = settings
        self.known = known
        self.runs: list[Run] = []
        self.failed: dict[str, str] = {}
        self.stands: list[Stand] = []

    def play(self) -> Decision | list[Run]:
        """Return the decision, or the runs that are missing for the next one."""
        alive = list(self.arms)
        *early, last = rungs_of(self.settings)
        for rung in early:
            # What the round before chose is trained to the end already: it goes on for nothing.
            judged = [arm for arm in alive if arm.name != self.held]
            if len(alive) <= FINALISTS or len(judged) < 2:
                break
            missing = self._missing(judged, rung)
            if missing:
                return missing
            alive = self._after(rung, judged)
        missing = self._missing(alive, last)
        return missing or self._decision(alive, last)

    def _missing(self, arms: list[Arm], rung: Rung) -> list[Run]:
        """Note a rung's runs, and return those without a result."""
        runs = [self._run(arm, seed, rung.until) for arm in arms for seed in rung.seeds]
        # What an earlier round trained stays as that one asked for it.
        runs = [self.known.runs.setdefault(run.key, run) for run in runs]
        self.runs += runs
        return [run for run in runs if self.known.lacks(run)]

    def _run(self, arm: Arm, seed: int, until: int) -> Run:
        """Return a run that goes on from the longest of this arm and seed so far."""
        for stand in reversed(self.stands):
            if seed in stand.rung.seeds and arm.name in stand.scores:
                return run_of(arm, seed, until, key_of(arm, seed, stand.rung.until))
        return run_of(arm, seed, until)

    def _scores(self, arms: list[Arm], rung: Rung) -> dict[str, Score]:
        """Score the arms whose training went on; the others are noted."""
        scores = {}
        for arm in arms:
            found = [self.known.results[key_of(arm, seed, rung.until)] for seed in rung.seeds]
            reasons = [result.failed for result in found if result.failed]
            if reasons:
                self.failed[arm.name] = reasons[0]
            else:
                scores[arm.name] = score_of(found, self.settings)
        return scores

    def _after(self, rung: Rung, judged: list[Arm]) -> list[Arm]:
        """Return the arms that go on after a rung."""
        scores = self._scores(judged, rung)
        going = {self.held}
        if scores:
            # The rule's own choice at this rung goes on, so that a smaller network within one
            # standard error is not lost to larger ones; Optuna decides about the others.
            first = "" if self.held else choose(scores, self.settings.protocol, "").name
            going |= {first}
            others = {name: score.mean for name, score in scores.items() if name != first}
            going |= set(survivors(others, rung.until, self.settings))
        alive = [arm for arm in self.arms if arm.name in going]
        judged_on = tuple(arm.name for arm in alive if arm.name != self.held)
        self.stands.append(Stand(rung, scores, judged_on))
        return alive

    def _decision(self, alive: list[Arm], last: Rung) -> Decision:
        scores = self._scores(alive, last)
        if not scores:
            name, reason = next(iter(self.failed.items()))
            raise UserError(f"study.{self.name}: no training went to the end; {name}: {reason}")
        choice = choose(scores, self.settings.protocol, self.held)
        self.stands.append(Stand(last, scores, tuple(scores)))
        return Decision(
            self.name,
            tuple(self.arms),
            self.held,
            tuple(self.stands),
            dict(self.failed),
            choice,
            tuple(self.runs),
        )


def _name_of(before: Arm, arms: list[Arm]) -> str:
    """Return what the arm of the round before is called in this one; "" where it has no part."""
    return next((arm.name for arm in arms if arm.slug == before.slug), "")
