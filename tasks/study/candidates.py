"""The candidates of a round, each a complete recipe, and the runs that train them.

Candidates with the same recipe share their runs: the incumbent, which an earlier round trained,
is not trained again.
"""

import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from tasks.core.errors import ParamsError
from tasks.core.params import DEVICE
from tasks.study.settings import PUBLISHED, Params

BACKBONES, LOSSES, OPTIMizERS = "backbones", "losses", "optimizers"
ROUNDS: tuple[str, ...] = (BACKBONES, LOSSES, OPTIMizERS)
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")  # in file names

Recipe = Mapping[str, Any]  # a complete section `train`


@dataclass(frozen=True)
class Arm:
    """One candidate of a round.

    Attributes
    ----------
    name
        For readers: a backbone, a loss, or an optimizer with its rate (`adam@0.001`).
    slug
        Prefix of its runs' keys, from the round that trained it first.
    train
        Its section `train`; the seed is set per run.
    """

    round: str
    name: str
    slug: str
    train: Recipe


@dataclass(frozen=True)
class Run:
    """The training of one candidate with one seed, until an epoch.

    Attributes
    ----------
    key
        Its name in files and stages, such as `backbones-resnet50-s1-e30`.
    round, arm
        Of the round that asked for it first.
    until
        The epoch after which it pauses or ends.
    train
        The complete section `train`, seed included.
    before
        Key of the shorter run of the same candidate and seed that this one resumes; None if it
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
        """Return the content of the run's file."""
        facts = {"round": self.round, "arm": self.arm, "seed": self.seed, "until": self.until}
        return {**facts, "train": dict(self.train)}


def run_of(arm: Arm, seed: int, until: int, before: str | None = None) -> Run:
    """Return the run of a candidate with a seed, until an epoch."""
    home, _, _ = arm.slug.partition("-")
    train = {**arm.train, "seed": seed}
    return Run(key_of(arm, seed, until), home, arm.name, seed, until, train, before)


def key_of(arm: Arm, seed: int, until: int) -> str:
    """Return a run's name in files and stages: letters, digits, dots, hyphens and underscores."""
    return f"{arm.slug}-s{seed}-e{until}"


def base_recipe(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the section `train` of a params file, with the device that all stages share.

    Empty if there is no such section.
    """
    train = content.get("train")
    shared = {DEVICE: content[DEVICE]} if DEVICE in content else {}
    return {**shared, **train} if isinstance(train, Mapping) else {}


def arms_of(round_name: str, settings: Params, train: Recipe, before: Arm | None) -> list[Arm]:
    """Return the candidates of a round, in the order of params.

    `before` is the incumbent, the winner of the round before; None in the first round. In `better`
    it competes in every later round, in first place if the round's list does not name it. In
    `published` it competes only if listed: that study compared its optimizers at a rate of their
    own and took the best of them.

    Raises
    ------
    ParamsError
        If two candidates have the same name in files.
    """
    if before is None:
        arms = [
            _arm(round_name, name, _with_backbone(train, name, settings))
            for name in settings.backbones
        ]
    elif round_name == LOSSES:
        arms = [_arm(round_name, name, _with_loss(before.train, name)) for name in settings.losses]
        arms = _with_incumbent(before, _loss_of(before.train), arms, settings)
    else:
        arms = [
            _arm(round_name, optimiser_name(name, rate), _with_optimizer(before.train, name, rate))
            for name in settings.optimizers
            for rate in rates(settings, name)
        ]
        arms = _with_incumbent(before, _optimiser_of(before.train), arms, settings)
    slugs = [arm.slug for arm in arms]
    twice = sorted({slug for slug in slugs if slugs.count(slug) > 1})
    if twice:
        raise ParamsError(f"study.{round_name}: two of them would both be called {twice[0]}")
    return arms


def rates(settings: Params, optimizer: str) -> list[float]:
    """Return the learning rates to try with an optimizer."""
    if settings.protocol == PUBLISHED:
        return [settings.published_learning_rate]
    return settings.learning_rates[optimizer]


def optimiser_name(name: str, rate: float) -> str:
    """Return the name of an optimizer with its rate."""
    return f"{name}@{rate:g}"


def _arm(round_name: str, name: str, train: Recipe) -> Arm:
    return Arm(round_name, name, f"{round_name}-{_UNSAFE.sub('_', name)}", train)


def _with_backbone(train: Recipe, backbone: str, settings: Params) -> Recipe:
    """Return the recipe of a backbone in the first round."""
    changed = {
        "weights": None,
        "subset": settings.subset,
        "backbone": backbone,
        "init": settings.init_by_backbone.get(backbone, train["init"]),
        "epochs": settings.epochs,
        "checkpoint": "best_accuracy" if settings.protocol == PUBLISHED else "last",
    }
    return {**deepcopy(dict(train)), **changed}


def _with_loss(train: Recipe, name: str) -> Recipe:
    return {**train, "loss": {**train["loss"], "name": name}}


def _with_optimizer(train: Recipe, name: str, rate: float) -> Recipe:
    return {**train, "optimizer": {**train["optimizer"], "name": name}, "learning_rate": rate}


def _loss_of(train: Recipe) -> str:
    return str(train["loss"]["name"])


def _optimiser_of(train: Recipe) -> str:
    return optimiser_name(train["optimizer"]["name"], train["learning_rate"])


def _with_incumbent(before: Arm, name: str, arms: list[Arm], settings: Params) -> list[Arm]:
    """Put the incumbent, with its slug and so its runs, in its place among the candidates."""
    incumbent = Arm(arms[0].round, name, before.slug, before.train)
    if name in [arm.name for arm in arms]:
        return [incumbent if arm.name == name else arm for arm in arms]
    return arms if settings.protocol == PUBLISHED else [incumbent, *arms]
