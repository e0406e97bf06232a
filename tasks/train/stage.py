"""Stage `train`: the base recogniser.

Reads data/split.parquet and the crops; writes models/base, and the figure of what the network is
shown in training. Trains `backbone` from random weights, from those of ImageNet or from those of a
model that is there already, with a fresh head (`start`), on a group of the training split, and
keeps an epoch by the same group of the validation split; or, where `weights` names a model, takes
that one as it is and trains nothing (then only `weights` matters: start, backbone, size, colour,
epochs and the rest are not used). The labels of a model that is trained are the emotions among its
training rows, in the vocabulary's order.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
import torch
from pydantic import Field
from torch import nn

from tasks.core.errors import DataError
from tasks.core.labels import credit_line, in_order
from tasks.core.models.backbones import build_module
from tasks.core.models.checkpoint import no_pictures_seen
from tasks.core.models.given import given_start, load_given
from tasks.core.models.imagenet import imagenet_start
from tasks.core.models.spec import CHANNELS, ModelSpec
from tasks.core.models.start import Start, require_size
from tasks.core.paths import Paths
from tasks.core.result import StageResult
from tasks.core.tables import read_table
from tasks.train.augmentation_sheet import augmentation_sheet, nothing_trained
from tasks.train.loop import HISTORY_COLUMNS
from tasks.train.outcome import fit_and_keep, keep_model, load_both
from tasks.train.pictures import Rows, choose_rows
from tasks.train.recipe import Recipe

# Any fixed values do: batch normalisation adapts to them in the first layer.
_MEAN, _STD = 0.5, 0.25


class Params(Recipe):
    """Section `train` of params.yaml."""

    weights: str | None
    start: Annotated[str, Field(min_length=1)]  # random, imagenet or a model to train on
    backbone: str
    input_size_px: Annotated[int, Field(ge=32, le=512)]
    colour: Literal["rgb", "grey"]


def run(params: Params, paths: Paths) -> StageResult:
    """Train (or convert) the base model into models/base."""
    if params.weights is not None:
        return _take_over(params.weights, paths)
    rows = choose_rows(read_table(paths.split), params.group, "train.group", labels=None)
    labels = labels_of(rows, "train.group")
    first = untrained(params, labels, rows.train["dataset"], paths)
    result = fit_and_keep(
        "train", "base", first.module, first.spec, rows, first.seen, params, paths
    )
    shown, _ = load_both(rows, params, paths, first.spec)
    augmentation_sheet(shown, rows.train, first.spec, params, paths, _sheet(paths))
    summary = "; ".join(filter(None, (result.summary, first.note)))
    return replace(result, artifacts=[*result.artifacts, _sheet(paths)], summary=summary)


def labels_of(rows: Rows, where: str) -> list[str]:
    """Return the emotions among the training rows, in order; DataError where it is one alone."""
    labels = in_order(rows.train["emotion"])
    if len(labels) < 2:
        raise DataError(
            f"{where}: every training picture shows {labels[0]}; two emotions are needed"
        )
    return labels


@dataclass(frozen=True)
class Untrained:
    """A model as its training begins.

    Attributes
    ----------
    module, spec
        The network with a head of random weights, and its description without a version.
    seen
        The pictures that its weights have seen before, with `SEEN_COLUMNS`.
    note
        What is worth a note in the stage's summary; "" where nothing is.
    """

    module: nn.Module
    spec: ModelSpec
    seen: pd.DataFrame
    note: str


def untrained(
    params: Params, labels: Sequence[str], datasets: pd.Series, paths: Paths
) -> Untrained:
    """Build the network that `start` and `backbone` name, for a set of labels.

    Parameters
    ----------
    params
        Section `train`; its seed draws the random weights.
    labels
        The emotions that it shall answer, in order.
    datasets
        `(N,)` the data set of each training picture, which the source credits.
    paths
        The project's paths.

    Raises
    ------
    ModelError, DownloadError
        One line: no such network or weights, or an input that is too small for the network.
    """
    torch.manual_seed(params.seed)
    start, architecture, seen, note = _first_weights(params, len(labels), paths)
    require_size(start.module, architecture, CHANNELS[params.colour], params.input_size_px)
    whence = f"trained here from {start.source}" if start.source else "trained here"
    spec = ModelSpec(
        architecture=architecture,
        labels=tuple(labels),
        input_size_px=params.input_size_px,
        colour=params.colour,
        mean=start.mean,
        std=start.std,
        version="",
        source="; ".join(filter(None, (whence, credit_line(datasets)))),
    )
    return Untrained(start.module, spec, seen, note)


def _first_weights(
    params: Params, n_labels: int, paths: Paths
) -> tuple[Start, str, pd.DataFrame, str]:
    """Return the network, its architecture's full name, what it has seen, and a note."""
    backbone, size_px, n_channels = params.backbone, params.input_size_px, CHANNELS[params.colour]
    if params.start == "random":
        module = build_module(backbone, n_labels, n_channels, size_px)
        start = Start(module, (_MEAN,) * n_channels, (_STD,) * n_channels, "")
        return start, backbone, no_pictures_seen(), ""
    if params.start == "imagenet":
        start = imagenet_start(backbone, n_labels, n_channels, size_px, paths.root)
        return start, backbone, no_pictures_seen(), ""
    given = given_start(params.start, backbone, n_labels, params.colour, size_px, paths.root)
    spec = given.spec
    start = Start(given.module, spec.mean, spec.std, _origin(spec))
    # Whatever it was trained as: in this run that is the base model's training.
    seen = given.seen.assign(stage="train")
    return start, spec.architecture, seen, given.margin.compare(paths.crop_settings)


def _origin(spec: ModelSpec) -> str:
    return f"version {spec.version} ({spec.source})" if spec.version else spec.source


def _take_over(weights: str, paths: Paths) -> StageResult:
    given = load_given(weights, paths.root)
    note = given.margin.compare(paths.crop_settings)
    history = pd.DataFrame(columns=list(HISTORY_COLUMNS))
    # Whatever it was trained as: in this run it is the base model.
    seen = given.seen.assign(stage="train")
    spec = keep_model(paths, "base", given.module, given.spec, seen, history)
    nothing_trained(f"the base model is {weights}, taken as it is.", _sheet(paths))
    return StageResult(
        metrics={"epochs": 0.0, "labels": float(len(spec.labels))},
        artifacts=[paths.model("base"), _sheet(paths)],
        summary="; ".join(
            filter(None, (f"{weights}, version {spec.version}; nothing was trained", note))
        ),
    )


def _sheet(paths: Paths) -> Path:
    return paths.figures / "augmentation.png"
