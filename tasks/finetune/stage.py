"""Stage `finetune@<strategy>`: continue training the base model on a group.

Reads models/base, data/split.parquet and the crops; writes models/<strategy>, which keeps the base
model's labels, input and architecture. The strategies are `naive` (all layers, only the group's
images, as in the study that this project reproduces), `head`, `replay` and `distill`; each has a
module here. Images whose emotion the model does not know are excluded and counted. The base model's
own weights compete as epoch 0. `naive` and `head` select their epoch on the group's validation
images, the others by the worst group among the fine-tuned and the replayed ones. The stage writes
only skipped.json if `finetune.strategies` does not list the strategy, if the base model cannot be
trained, or, with `allow_empty_group`, if the group has no images yet.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import pandas as pd
from pydantic import Field

from tasks.core.errors import ParamsError
from tasks.core.models.checkpoint import Skipped, load_model, load_seen, load_spec
from tasks.core.models.spec import ModelSpec, select_rows
from tasks.core.params import Section
from tasks.core.paths import Paths
from tasks.core.stages import StageResult
from tasks.core.tables import read_table
from tasks.core.training.config import TrainConfig
from tasks.core.training.data.dataset import TrainValidRows, choose_rows
from tasks.core.training.linear_probe import HeadOnly
from tasks.core.training.strategy import Strategy
from tasks.core.training.train_model import cannot_be_trained, skip, train_and_save
from tasks.finetune.strategies import Distill, Replay

_REPLAY_STRATEGIES = ("replay", "distill")


class StrategySchedule(Section):
    """Training length and learning rate of a strategy."""

    epochs: Annotated[int, Field(ge=1)]
    learning_rate: Annotated[float, Field(gt=0)]


class ReplayParams(StrategySchedule):
    """Which images are replayed, and their share."""

    subset: dict[str, list[str]]
    share: Annotated[float, Field(ge=0, lt=1)]


class DistillParams(StrategySchedule):
    """Distillation loss; the images are those of `replay`."""

    temperature: Annotated[float, Field(gt=0)]
    weight: Annotated[float, Field(ge=0)]


class Params(TrainConfig):
    """Section `finetune` of params.yaml."""

    strategies: list[Literal["naive", "head", "replay", "distill"]]
    allow_empty_group: bool
    min_n: Annotated[int, Field(ge=1)]
    head: StrategySchedule
    replay: ReplayParams
    distill: DistillParams


def run(params: Params, paths: Paths, strategy: str) -> StageResult:
    """Fine-tune models/base on a group into models/<strategy>."""
    folder = paths.model("base")
    table = read_table(paths.split)
    reason = _reason_to_skip(params, load_spec(folder), strategy, table)
    if reason:
        return skip(paths, strategy, Skipped(reason, load_spec(folder).labels))
    module, base = load_model(folder)
    try:
        rows, plan = _plan(params, strategy, table, base)
    except ParamsError as error:
        if not _is_empty(params.subset, table):
            raise
        raise ParamsError(
            f"{error}; or finetune.allow_empty_group: true, if they come later"
        ) from None
    source = f"fine-tuned here ({strategy}) from version {base.version} ({base.source})"
    spec = base.model_copy(update={"source": source})
    recipe = _with_schedule(params, strategy)
    seen = load_seen(folder)
    return train_and_save("finetune", strategy, module, spec, rows, seen, recipe, paths, plan)


def _reason_to_skip(
    params: Params, base: ModelSpec, strategy: str, table: pd.DataFrame
) -> str | None:
    if strategy not in params.strategies:
        return f"finetune.strategies does not name {strategy}"
    if params.allow_empty_group and _is_empty(params.subset, table):
        return f"no pictures of finetune.subset yet: {dict(params.subset)}"
    return cannot_be_trained(base)


def _is_empty(group: Mapping[str, Sequence[str]], table: pd.DataFrame) -> bool:
    """Return whether a group lacks training or validation images."""
    members = table
    for column, values in group.items():
        if column not in table.columns:
            return False  # a misspelled column is reported later
        members = members[members[column].isin(list(values))]
    return not {"train", "validation"} <= set(members["split"])


def _plan(
    params: Params, strategy: str, table: pd.DataFrame, base: ModelSpec
) -> tuple[TrainValidRows, Strategy]:
    """Choose the images and the strategy object."""
    target_rows = choose_rows(table, params.subset, "finetune.subset", base.labels)
    if strategy not in _REPLAY_STRATEGIES:
        return target_rows, HeadOnly() if strategy == "head" else Strategy()
    rest = table.drop(select_rows(table, params.subset, "finetune.subset").index)
    if rest.empty:
        raise ParamsError(
            "finetune.replay.subset: every picture is in finetune.subset, none is left to replay;"
            " take replay and distill out of finetune.strategies"
        )
    others = choose_rows(rest, params.replay.subset, "finetune.replay.subset", base.labels)
    rows = TrainValidRows(
        pd.concat([target_rows.train, others.train]),
        pd.concat([target_rows.validation, others.validation]),
        target_rows.left_out + others.left_out,
        by=tuple(dict.fromkeys([*params.subset, *params.replay.subset])),
        min_n=params.min_n,
        replayed=frozenset([*others.train["image_id"], *others.validation["image_id"]]),
    )
    n_own, share = len(target_rows.train), params.replay.share
    if strategy == "replay":
        return rows, Replay(n_own, share)
    return rows, Distill(n_own, share, params.distill.temperature, params.distill.weight)


def _with_schedule(params: Params, strategy: str) -> TrainConfig:
    if strategy == "naive":
        return params
    pace: StrategySchedule = getattr(params, strategy)
    changes = {"epochs": pace.epochs, "learning_rate": pace.learning_rate}
    return params.model_copy(update=changes)
