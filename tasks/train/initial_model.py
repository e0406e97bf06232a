"""The initial model of a training: its network, weights and labels.

Both the base model and every study run start here.
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
from tasks.core.models.checkpoint import empty_seen_table
from tasks.core.models.spec import CHANNELS, ModelSpec
from tasks.core.paths import Paths
from tasks.core.training.config import TrainConfig
from tasks.core.training.data.dataset import TrainValidRows
from tasks.train.pretrained.external_model import init_from_external_model
from tasks.train.pretrained.imagenet import init_from_imagenet
from tasks.train.pretrained.transfer import InitialWeights, check_input_size

# Any fixed values work: batch normalization adapts to them in the first layer.
_MEAN, _STD = 0.5, 0.25


class TrainParams(TrainConfig):
    """Section `train` of params.yaml."""

    weights: str | None
    init: Annotated[str, Field(min_length=1)]  # random, imagenet or a model to train on
    backbone: str
    input_size_px: Annotated[int, Field(ge=32, le=512)]
    color: Literal["rgb", "gray"]


def labels_of(rows: TrainValidRows, where: str) -> list[str]:
    """Return the emotions among the training rows, in order; DataError if there is only one."""
    labels = in_order(rows.train["emotion"])
    if len(labels) < 2:
        raise DataError(
            f"{where}: every training picture shows {labels[0]}; two emotions are needed"
        )
    return labels


@dataclass(frozen=True)
class InitialModel:
    """A model at the start of its training.

    Attributes
    ----------
    module, spec
        The network with a randomly initialized head, and its description without a version.
    seen
        The images that its weights have seen before, with `SEEN_COLUMNS`.
    note
        Note for the stage's summary; may be empty.
    """

    module: nn.Module
    spec: ModelSpec
    seen: pd.DataFrame
    note: str


def build_initial_model(
    params: TrainParams, labels: Sequence[str], datasets: pd.Series, paths: Paths
) -> InitialModel:
    """Build the network that `init` and `backbone` name, for a set of labels in order.

    `datasets` is `(N,)`, the dataset of each training image, for the credits in the source. Raises
    ModelError or DownloadError if the network or its weights do not exist, or if the input is too
    small for the network.
    """
    torch.manual_seed(params.seed)
    start, architecture, seen, note = _initial_weights(params, len(labels), paths)
    check_input_size(start.module, architecture, CHANNELS[params.color], params.input_size_px)
    origin = f"trained here from {start.source}" if start.source else "trained here"
    spec = ModelSpec(
        architecture=architecture,
        labels=tuple(labels),
        input_size_px=params.input_size_px,
        color=params.color,
        mean=start.mean,
        std=start.std,
        version="",
        source="; ".join(filter(None, (origin, credit_line(datasets)))),
    )
    return InitialModel(start.module, spec, seen, note)


def _initial_weights(
    params: TrainParams, n_labels: int, paths: Paths
) -> tuple[InitialWeights, str, pd.DataFrame, str]:
    """Return the network, its architecture's full name, the images it has seen, and a note."""
    backbone, size_px, n_channels = params.backbone, params.input_size_px, CHANNELS[params.color]
    if params.init == "random":
        module = build_module(backbone, n_labels, n_channels, size_px)
        start = InitialWeights(module, (_MEAN,) * n_channels, (_STD,) * n_channels, "")
        return start, backbone, empty_seen_table(), ""
    if params.init == "imagenet":
        start = init_from_imagenet(backbone, n_labels, n_channels, size_px, paths.root)
        return start, backbone, empty_seen_table(), ""
    external = init_from_external_model(
        params.init, backbone, n_labels, params.color, size_px, paths.root
    )
    spec = external.spec
    start = InitialWeights(external.module, spec.mean, spec.std, _origin(spec))
    # In this run it counts as training of the base model, whatever stage it was.
    seen = external.seen.assign(stage="train")
    return start, spec.architecture, seen, external.margin.compare(paths.crop_settings)


def _origin(spec: ModelSpec) -> str:
    return f"version {spec.version} ({spec.source})" if spec.version else spec.source
