"""Stage `train`: the base recogniser.

Reads data/split.parquet and the crops; writes models/base. Trains `backbone` from random weights
on a group of the training split and keeps the epoch that does best on the same group of the
validation split; or, where `weights` names a pre-trained model, converts that one and trains
nothing (then only `weights` matters: backbone, size, colour, epochs and the rest are not used).
Its labels are the emotions among its training rows, in the vocabulary's order.
"""

from typing import Annotated, Literal

import pandas as pd
import torch
from pydantic import Field

from tasks.core.errors import DataError
from tasks.core.labels import credit_line, in_order
from tasks.core.models.backbones import build_module
from tasks.core.models.checkpoint import no_pictures_seen
from tasks.core.models.pretrained import check_name, load_pretrained
from tasks.core.models.spec import ModelSpec
from tasks.core.paths import Paths
from tasks.core.result import StageResult
from tasks.core.tables import read_table
from tasks.train.loop import HISTORY_COLUMNS
from tasks.train.outcome import fit_and_keep, keep_model
from tasks.train.pictures import choose_rows
from tasks.train.recipe import Recipe

# Any fixed values do: batch normalisation adapts to them in the first layer.
_MEAN, _STD = 0.5, 0.25


class Params(Recipe):
    """Section `train` of params.yaml."""

    weights: str | None
    backbone: str
    input_size_px: Annotated[int, Field(ge=32, le=512)]
    colour: Literal["rgb", "grey"]


def run(params: Params, paths: Paths) -> StageResult:
    """Train (or convert) the base model into models/base."""
    if params.weights is not None:
        return _convert(params.weights, paths)
    rows = choose_rows(read_table(paths.split), params.group, "train.group", labels=None)
    labels = in_order(rows.train["emotion"])
    if len(labels) < 2:
        raise DataError(
            f"train.group: every training picture shows {labels[0]}; two emotions are needed"
        )
    n_channels = 3 if params.colour == "rgb" else 1
    spec = ModelSpec(
        architecture=params.backbone,
        labels=tuple(labels),
        input_size_px=params.input_size_px,
        colour=params.colour,
        mean=(_MEAN,) * n_channels,
        std=(_STD,) * n_channels,
        version="",
        source="; ".join(filter(None, ("trained here", credit_line(rows.train["dataset"])))),
    )
    torch.manual_seed(params.seed)
    module = build_module(spec.architecture, len(labels), n_channels)
    return fit_and_keep("train", "base", module, spec, rows, no_pictures_seen(), params, paths)


def _convert(name: str, paths: Paths) -> StageResult:
    check_name(name)
    module, spec = load_pretrained(name, paths.root)
    history = pd.DataFrame(columns=list(HISTORY_COLUMNS))
    spec = keep_model(paths, "base", module, spec, no_pictures_seen(), history)
    return StageResult(
        metrics={"epochs": 0.0, "labels": float(len(spec.labels))},
        artifacts=[paths.model("base")],
        summary=f"{name}, pre-trained, version {spec.version}; nothing was trained",
    )
