"""Stage `train`: the base recogniser.

Reads data/split.parquet and the crops; writes models/base. Trains `backbone` from random weights,
or from those of ImageNet (`start`), on a group of the training split and keeps the epoch that does
best on the same group of the validation split; or, where `weights` names a model that is there
already, takes that one and trains nothing (then only `weights` matters: start, backbone, size,
colour, epochs and the rest are not used). The labels of a model that is trained are the emotions
among its training rows, in the vocabulary's order.
"""

from typing import Annotated, Literal

import pandas as pd
import torch
from pydantic import Field

from tasks.core.errors import DataError, ParamsError
from tasks.core.labels import credit_line, in_order
from tasks.core.models.backbones import build_module
from tasks.core.models.checkpoint import no_pictures_seen
from tasks.core.models.given import load_given
from tasks.core.models.imagenet import Start, imagenet_start
from tasks.core.models.spec import CHANNELS, ModelSpec
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
    start: Literal["random", "imagenet"]
    backbone: str
    input_size_px: Annotated[int, Field(ge=32, le=512)]
    colour: Literal["rgb", "grey"]


def run(params: Params, paths: Paths) -> StageResult:
    """Train (or convert) the base model into models/base."""
    if params.weights is not None:
        return _take_over(params.weights, paths)
    rows = choose_rows(read_table(paths.split), params.group, "train.group", labels=None)
    labels = in_order(rows.train["emotion"])
    if len(labels) < 2:
        raise DataError(
            f"train.group: every training picture shows {labels[0]}; two emotions are needed"
        )
    start = _start(params, len(labels), paths)
    whence = "trained here" if params.start == "random" else f"trained here from {start.source}"
    spec = ModelSpec(
        architecture=params.backbone,
        labels=tuple(labels),
        input_size_px=params.input_size_px,
        colour=params.colour,
        mean=start.mean,
        std=start.std,
        version="",
        source="; ".join(filter(None, (whence, credit_line(rows.train["dataset"])))),
    )
    seen = no_pictures_seen()
    return fit_and_keep("train", "base", start.module, spec, rows, seen, params, paths)


def _start(params: Params, n_labels: int, paths: Paths) -> Start:
    """Build the network with the weights that it starts from."""
    torch.manual_seed(params.seed)
    size_px = params.input_size_px
    if params.start == "random":
        n_channels = CHANNELS[params.colour]
        module = build_module(params.backbone, n_labels, n_channels, size_px)
        return Start(module, (_MEAN,) * n_channels, (_STD,) * n_channels, "random weights")
    if params.colour != "rgb":
        raise ParamsError("train.colour: ImageNet weights take rgb; set it, or train.start: random")
    return imagenet_start(params.backbone, n_labels, size_px, paths.root)


def _take_over(weights: str, paths: Paths) -> StageResult:
    given = load_given(weights, paths.root)
    note = given.margin.compare(paths.crop_settings)
    history = pd.DataFrame(columns=list(HISTORY_COLUMNS))
    # Whatever it was trained as: in this run it is the base model.
    seen = given.seen.assign(stage="train")
    spec = keep_model(paths, "base", given.module, given.spec, seen, history)
    return StageResult(
        metrics={"epochs": 0.0, "labels": float(len(spec.labels))},
        artifacts=[paths.model("base")],
        summary="; ".join(
            filter(None, (f"{weights}, version {spec.version}; nothing was trained", note))
        ),
    )
