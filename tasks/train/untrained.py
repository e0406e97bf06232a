"""A model as its training begins: the network that params name, and its labels.

Both the base model and every run of a study begin here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import pandas as pd
import torch
from pydantic import Field
from torch import nn

from tasks.core.errors import DataError
from tasks.core.labels import credit_line, in_order
from tasks.core.models.backbones import build_module
from tasks.core.models.checkpoint import no_pictures_seen
from tasks.core.models.given import given_start
from tasks.core.models.imagenet import imagenet_start
from tasks.core.models.spec import CHANNELS, ModelSpec
from tasks.core.models.start import Start, require_size
from tasks.core.paths import Paths
from tasks.train.pictures import Rows
from tasks.train.recipe import Recipe

# Any fixed values do: batch normalisation adapts to them in the first layer.
_MEAN, _STD = 0.5, 0.25


class TrainParams(Recipe):
    """Section `train` of params.yaml."""

    weights: str | None
    start: Annotated[str, Field(min_length=1)]  # random, imagenet or a model to train on
    backbone: str
    input_size_px: Annotated[int, Field(ge=32, le=512)]
    colour: Literal["rgb", "grey"]


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
    params: TrainParams, labels: Sequence[str], datasets: pd.Series, paths: Paths
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
    params: TrainParams, n_labels: int, paths: Paths
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
