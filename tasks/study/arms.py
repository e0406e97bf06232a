"""What a round compares: arms, each a whole recipe, and the runs that train them.

Two arms with the same recipe are one: the loss and the optimiser with which a round before trained
its winner are not trained again, but stand in the next round with the runs that there are.
"""

import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from tasks.core.errors import ParamsError
from tasks.study.settings import PUBLISHED, Params

BACKBONES, LOSSES, OPTIMISERS = "backbones", "losses", "optimisers"
ROUNDS: tuple[str, ...] = (BACKBONES, LOSSES, OPTIMISERS)
_OTHER = re.compile(r"[^A-Za-z0-9._-]")

Recipe = Mapping[str, Any]  # a whole section `train`


@dataclass(frozen=True)
class Arm:
    """One thing that a round compares.

    Attributes
    ----------
    round
        `backbones`, `losses` or `optimisers`.
    name
        What readers see: a backbone, a loss, or an optimiser and its rate (`adam@0.001`).
    slug
        Names its runs; that of the round which trained it first.
    train
        Its section `train`; the seed is a run's.
    """

    round: str
    name: str
    slug: str
    train: Recipe


@dataclass(frozen=True)
class Run:
    """One training: an arm with a seed, until an epoch.

    Attributes
    ----------
    key
        Its name in files and stages, such as `backbones-resnet50-s1-e30`.
    round, arm
        Of the round that asks for it first.
    seed, until
        First weights, order and augmentation; the epoch after which it pauses or ends.
    train
        The whole section `train`, seed included.
    before
        The key of the run, of the same arm and seed, that this one goes on from; None where it
        starts from the first epoch.
    """

    key: str
    round: str
    arm: str
    seed: int
    until: int
    train: Recipe
    before: str | None

    def content(self) -> dict[str, Any]:
        """Return what a run's file says."""
        facts = {"round": self.round, "arm": self.arm, "seed": self.seed, "until": self.until}
        return {**facts, "train": dict(self.train)}


def run_of(arm: Arm, seed: int, until: int, before: str | None = None) -> Run:
    """Return the run of an arm with a seed, until an epoch."""
    home, _, _ = arm.slug.partition("-")
    train = {**arm.train, "seed": seed}
    return Run(key_of(arm, seed, until), home, arm.name, seed, until, train, before)


def key_of(arm: Arm, seed: int, until: int) -> str:
    """Name a run in files and stages: letters, digits, dots, hyphens and underscores."""
    return f"{arm.slug}-s{seed}-e{until}"


def arms_of(round_name: str, settings: Params, train: Recipe, before: Arm | None) -> list[Arm]:
    """Return what a round compares, in the order of params.

    Parameters
    ----------
    round_name
        One of `ROUNDS`.
    settings, train
        Sections `study` and `train` of params.yaml.
    before
        What the round before chose; None in the first. In `better` it competes in every later
        round, first where the round's list does not name it; in `published` only where it does:
        that study compared its optimisers at a rate of their own and took the best of them.

    Raises
    ------
    ParamsError
        Where two arms cannot be told apart by their names in files.
    """
    if before is None:
        arms = [
            _arm(round_name, name, _first(name, settings, train)) for name in settings.backbones
        ]
    elif round_name == LOSSES:
        arms = [_arm(round_name, name, _with_loss(before.train, name)) for name in settings.losses]
        arms = _with(before, _loss_of(before.train), arms, settings)
    else:
        arms = [
            _arm(round_name, optimiser_name(name, rate), _with_optimiser(before.train, name, rate))
            for name in settings.optimisers
            for rate in rates(settings, name)
        ]
        arms = _with(before, _optimiser_of(before.train), arms, settings)
    slugs = [arm.slug for arm in arms]
    twice = sorted({slug for slug in slugs if slugs.count(slug) > 1})
    if twice:
        raise ParamsError(f"study.{round_name}: two of them would both be called {twice[0]}")
    return arms


def rates(settings: Params, optimiser: str) -> list[float]:
    """Return the learning rates that an optimiser is tried with."""
    if settings.protocol == PUBLISHED:
        return [settings.published_learning_rate]
    return settings.learning_rates[optimiser]


def optimiser_name(name: str, rate: float) -> str:
    """Name an optimiser at a rate."""
    return f"{name}@{rate:g}"


def _arm(round_name: str, name: str, train: Recipe) -> Arm:
    return Arm(round_name, name, f"{round_name}-{_OTHER.sub('_', name)}", train)


def _first(backbone: str, settings: Params, train: Recipe) -> Recipe:
    """Return the recipe of the first round: everything but the backbone is as `train` says."""
    changed = {
        "weights": None,
        "group": settings.group,
        "backbone": backbone,
        "start": settings.starts.get(backbone, train["start"]),
        "epochs": settings.epochs,
        "keep": "best_accuracy" if settings.protocol == PUBLISHED else "last",
    }
    return {**deepcopy(dict(train)), **changed}


def _with_loss(train: Recipe, name: str) -> Recipe:
    return {**train, "loss": {**train["loss"], "name": name}}


def _with_optimiser(train: Recipe, name: str, rate: float) -> Recipe:
    return {**train, "optimiser": {**train["optimiser"], "name": name}, "learning_rate": rate}


def _loss_of(train: Recipe) -> str:
    return str(train["loss"]["name"])


def _optimiser_of(train: Recipe) -> str:
    return optimiser_name(train["optimiser"]["name"], train["learning_rate"])


def _with(before: Arm, name: str, arms: list[Arm], settings: Params) -> list[Arm]:
    """Put what the round before chose in its place, with the runs that it has."""
    own = Arm(arms[0].round, name, before.slug, before.train)
    if name in [arm.name for arm in arms]:
        return [own if arm.name == name else arm for arm in arms]
    return arms if settings.protocol == PUBLISHED else [own, *arms]
