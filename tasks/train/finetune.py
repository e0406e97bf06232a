"""Stage `finetune@<strategy>`: the base model, trained on with a group's pictures.

Reads models/base, data/split.parquet and the crops; writes models/<strategy>, which keeps the base
model's labels, input and architecture. The strategies are `naive` (all layers on the group alone,
as in the study that this project repeats), `head`, `replay` and `distill`; each has a module here.
Pictures whose emotion the model does not know are left out and counted. The base model's own
weights compete as epoch 0. `naive` and `head` choose their epoch by the group's validation
pictures, the others by the worst group among the fine-tuned and the replayed ones. A strategy that
`finetune.strategies` does not name, or a base model that cannot be trained, leaves skipped.json; so
does, with `may_be_empty`, a group that has no pictures yet.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import pandas as pd
from pydantic import Field

from tasks.core.errors import ParamsError
from tasks.core.models.checkpoint import load_model, load_seen, load_spec
from tasks.core.models.spec import ModelSpec
from tasks.core.params import Section
from tasks.core.paths import Paths
from tasks.core.result import StageResult
from tasks.core.selection import select_rows
from tasks.core.skipped import Skipped
from tasks.core.tables import read_table
from tasks.train.distill import Distill
from tasks.train.head_only import HeadOnly
from tasks.train.outcome import cannot_be_trained, fit_and_keep, skip
from tasks.train.pictures import Rows, choose_rows
from tasks.train.recipe import Recipe
from tasks.train.replay import Replay
from tasks.train.strategy import Strategy

_REHEARSING = ("replay", "distill")


class Pace(Section):
    """How long and how fast a strategy trains, where it is not as the group alone needs."""

    epochs: Annotated[int, Field(ge=1)]
    learning_rate: Annotated[float, Field(gt=0)]


class ReplayParams(Pace):
    """Which pictures come back, and how many."""

    group: dict[str, list[str]]
    share: Annotated[float, Field(ge=0, lt=1)]


class DistillParams(Pace):
    """How the base model's answers count; the pictures are those of `replay`."""

    temperature: Annotated[float, Field(gt=0)]
    weight: Annotated[float, Field(ge=0)]


class Params(Recipe):
    """Section `finetune` of params.yaml."""

    strategies: list[Literal["naive", "head", "replay", "distill"]]
    may_be_empty: bool
    min_n: Annotated[int, Field(ge=1)]
    head: Pace
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
        rows, how = _plan(params, strategy, table, base)
    except ParamsError as error:
        if not _has_none_yet(params.group, table):
            raise
        raise ParamsError(f"{error}; or finetune.may_be_empty: true, if they come later") from None
    source = f"fine-tuned here ({strategy}) from version {base.version} ({base.source})"
    spec = base.model_copy(update={"source": source})
    recipe = _at_its_pace(params, strategy)
    seen = load_seen(folder)
    return fit_and_keep("finetune", strategy, module, spec, rows, seen, recipe, paths, how)


def _reason_to_skip(
    params: Params, base: ModelSpec, strategy: str, table: pd.DataFrame
) -> str | None:
    if strategy not in params.strategies:
        return f"finetune.strategies does not name {strategy}"
    if params.may_be_empty and _has_none_yet(params.group, table):
        return f"no pictures of finetune.group yet: {dict(params.group)}"
    return cannot_be_trained(base)


def _has_none_yet(group: Mapping[str, Sequence[str]], table: pd.DataFrame) -> bool:
    """Whether a group lacks pictures to train on or to validate on."""
    inside = table
    for column, values in group.items():
        if column not in table.columns:
            return False  # a misspelt column is told as ever
        inside = inside[inside[column].isin(list(values))]
    return not {"train", "validation"} <= set(inside["split"])


def _plan(
    params: Params, strategy: str, table: pd.DataFrame, base: ModelSpec
) -> tuple[Rows, Strategy]:
    """Choose the pictures and what is done with them."""
    own = choose_rows(table, params.group, "finetune.group", base.labels)
    if strategy not in _REHEARSING:
        return own, HeadOnly() if strategy == "head" else Strategy()
    rest = table.drop(select_rows(table, params.group, "finetune.group").index)
    if rest.empty:
        raise ParamsError(
            "finetune.replay.group: every picture is in finetune.group and none is left to replay;"
            " take replay and distill out of finetune.strategies"
        )
    others = choose_rows(rest, params.replay.group, "finetune.replay.group", base.labels)
    rows = Rows(
        pd.concat([own.train, others.train]),
        pd.concat([own.validation, others.validation]),
        own.left_out + others.left_out,
        by=tuple(dict.fromkeys([*params.group, *params.replay.group])),
        min_n=params.min_n,
        replayed=frozenset([*others.train["image_id"], *others.validation["image_id"]]),
    )
    n_own, share = len(own.train), params.replay.share
    if strategy == "replay":
        return rows, Replay(n_own, share)
    return rows, Distill(n_own, share, params.distill.temperature, params.distill.weight)


def _at_its_pace(params: Params, strategy: str) -> Recipe:
    if strategy == "naive":
        return params
    pace: Pace = getattr(params, strategy)
    changes = {"epochs": pace.epochs, "learning_rate": pace.learning_rate}
    return params.model_copy(update=changes)
