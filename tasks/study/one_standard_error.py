"""Which arm a round chooses: the one-standard-error rule, or the highest as published.

Arms whose mean lies less than one standard error of the best below the best are as good as anyone
can tell (L. Breiman et al. 1984, Classification and Regression Trees, section 3.4.3). Among them
the smallest network is chosen; among networks of one size the arm with which the round before
ended, so that nothing changes without a reason; then the higher mean; then the order of params.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from tasks.core.headline import percent, points
from tasks.study.scores import Score
from tasks.study.settings import PUBLISHED


@dataclass(frozen=True)
class Choice:
    """What was chosen among scored arms.

    Attributes
    ----------
    name
        The chosen arm.
    best
        The arm with the highest mean.
    threshold
        The lowest mean that is within one standard error of the best; for `published` the best.
    within
        Names of the arms at or above it, in the order of params.
    why
        One sentence.
    """

    name: str
    best: str
    threshold: float
    within: tuple[str, ...]
    why: str


def choose(scores: Mapping[str, Score], protocol: str, before: str) -> Choice:
    """Choose among arms.

    Parameters
    ----------
    scores
        Name to score, in the order of params; at least one.
    protocol
        `better`, or `published`: the highest score, the first of equals.
    before
        The name of the arm with which the round before ended; "" for none.
    """
    names = list(scores)
    best = max(names, key=lambda name: scores[name].mean)  # the first of equals
    top = scores[best]
    if protocol == PUBLISHED:
        why = f"{best} has the highest validation accuracy of any epoch ({percent(top.mean)})"
        return Choice(best, best, top.mean, (best,), f"{why}; one seed each.")
    threshold = top.mean - (top.se if top.se == top.se else 0.0)  # one person tells no error
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
