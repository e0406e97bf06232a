"""Successive halving: which arms go on after a rung, as Optuna's pruner decides.

K. Jamieson, A. Talwalkar (2016), AISTATS, 240-248: all arms are trained briefly, the best share of
them longer, and so on. A rung is judged when all of its runs are done, so that it does not matter
which finished first: for every arm a fresh study is told of all others before the pruner is asked
about this one.

A run's schedule spans all epochs from the start, so that what a rung sees is the beginning of the
very run that goes to the end, and no epoch is trained twice.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.study.settings import PUBLISHED, Params

if TYPE_CHECKING:
    from optuna.study import Study

_NEXT = 1e-9  # equals are told apart by their order, so that no more go on than the rule says


@dataclass(frozen=True)
class Rung:
    """Until which epoch, and with which seeds, arms are trained before they are judged."""

    until: int
    seeds: tuple[int, ...]


def rungs_of(settings: Params) -> list[Rung]:
    """Return the rungs in order; the last has all epochs and all seeds."""
    last = Rung(settings.epochs, settings.used_seeds)
    halving = settings.halving
    if halving is None or settings.protocol == PUBLISHED:
        return [last]
    early, until = [], halving.first_epochs
    while until < settings.epochs:
        early.append(Rung(until, settings.used_seeds[: halving.first_seeds]))
        until *= halving.reduction
    return [*early, last]


def survivors(scores: Mapping[str, float], until: int, settings: Params) -> list[str]:
    """Return which of the arms the pruner lets go on: one in `reduction`, at least one.

    The plan adds the arm that the rule would choose, or what the round before ended with, which is
    not among those asked about.

    Parameters
    ----------
    scores
        Name to score after the rung, in the order of params; higher is better.
    until
        The rung's epochs.
    settings
        With `halving`.
    """
    return [name for name in scores if not _pruned(name, scores, until, settings)]


def _pruned(name: str, scores: Mapping[str, float], until: int, settings: Params) -> bool:
    """Ask the pruner about one arm after it was told of all the others."""
    import optuna

    assert settings.halving is not None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner = optuna.pruners.SuccessiveHalvingPruner(until, settings.halving.reduction)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    places = {other: place for place, other in enumerate(scores)}
    for other in [*(other for other in scores if other != name), name]:
        pruned = _told(study, scores[other] - _NEXT * places[other], until)
    return pruned


def _told(study: "Study", score: float, until: int) -> bool:
    """Tell a study of one more arm's score, and return whether it would stop there."""
    trial = study.ask()
    trial.report(score, until)
    return trial.should_prune()
