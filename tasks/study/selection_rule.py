"""Which candidate wins a round, and which candidates survive a rung of successive halving.

The winner of a round follows the one-standard-error rule (L. Breiman et al. 1984, Classification
and Regression Trees, section 3.4.3): candidates whose mean lies less than one standard error of the
best below the best cannot be distinguished from it. Among them the smallest network wins. Among
networks of one size the incumbent, the winner of the round before, is preferred, so that nothing
changes without a reason; then the higher mean; then the order of params. The protocol `published`
takes the highest score instead.

Successive halving (K. Jamieson, A. Talwalkar 2016, AISTATS, 240-248) trains all candidates briefly,
the best share of them longer, and so on. A rung is judged when all of its runs are done, so that
the order in which they finish does not matter. The schedule of a run spans all epochs from the
start: a rung sees the beginning of the run that goes to the end, and no epoch is trained twice.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from tasks.core.gap_sentences import percent, points
from tasks.study.results import Score
from tasks.study.settings import PUBLISHED, Params


@dataclass(frozen=True)
class Choice:
    """The winner of a round.

    Attributes
    ----------
    threshold
        The lowest mean within one standard error of the best; for `published` the best mean.
    within
        Names of the candidates at or above it, in the order of params.
    why
        One sentence.
    """

    name: str
    best: str
    threshold: float
    within: tuple[str, ...]
    why: str


def choose(scores: Mapping[str, Score], protocol: str, before: str) -> Choice:
    """Choose among candidates; `scores` maps at least one name to its score, in order of params.

    `before` is the name of the incumbent, "" where there is none.
    """
    names = list(scores)
    best = max(names, key=lambda name: scores[name].mean)  # the first of equals
    top = scores[best]
    if protocol == PUBLISHED:
        why = f"{best} has the highest validation accuracy of any epoch ({percent(top.mean)})"
        return Choice(best, best, top.mean, (best,), f"{why}; one seed each.")
    # The standard error is NaN where there is only one subject.
    threshold = top.mean - (top.se if top.se == top.se else 0.0)
    within = tuple(name for name in names if scores[name].mean >= threshold)

    def rank(name: str) -> tuple[float, bool, float, int]:
        score = scores[name]
        return (score.parameters, name != before, -score.mean, names.index(name))

    name = min(within, key=rank)
    return Choice(name, best, threshold, within, _why(name, best, scores, before))


def _why(name: str, best: str, scores: Mapping[str, Score], before: str) -> str:
    chosen, top = scores[name], scores[best]
    highest = f"{best} has the highest mean validation recall ({percent(top.mean)})"
    error = f"one standard error ({points(top.se)} points)"
    if name == best:
        if len(scores) == 1:
            return f"{highest}; nothing else was trained to the end."
        if before and name != before:
            return f"{highest}, and {before}, which was used before, lies more than {error} below."
        if before:
            return f"{highest}, and was used before."
        return f"{highest}; no smaller network lies within {error} of it."
    if chosen.parameters < top.parameters:
        share = 100 * chosen.parameters / top.parameters
        return (
            f"{highest}; {name} ({percent(chosen.mean)}) lies within {error} of it with "
            f"{share:.2g}\u202f% of its parameters, and the smaller network is preferred."
        )
    if name == before:
        return (
            f"{highest}, but {name} ({percent(chosen.mean)}), which was used before, lies within "
            f"{error} of it: nothing is changed without a reason."
        )
    return f"{highest}; {name} is as good and comes first."


@dataclass(frozen=True)
class Rung:
    """The last epoch and the seeds of a rung."""

    until: int
    seeds: tuple[int, ...]


def rungs_of(settings: Params) -> list[Rung]:
    """Return the rungs in order; the last has all epochs and all seeds."""
    last = Rung(settings.epochs, settings.used_seeds)
    halving = settings.halving
    if halving is None or settings.protocol == PUBLISHED:
        return [last]
    early, until = [], halving.min_epochs
    while until < settings.epochs:
        early.append(Rung(until, settings.used_seeds[: halving.first_seeds]))
        until *= halving.reduction_factor
    return [*early, last]


def survivors(scores: Mapping[str, float], reduction: int) -> list[str]:
    """Return the best 1/`reduction` of the candidates, at least one, in the order of `scores`.

    Higher scores are better; of equal scores the earlier comes first.
    """
    count = max(1, len(scores) // reduction)
    best = sorted(scores, key=lambda name: scores[name], reverse=True)[:count]
    return [name for name in scores if name in best]
