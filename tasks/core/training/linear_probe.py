"""Strategy `head` (linear probing): the head is trained on cached features of the frozen backbone.

While only the last layer changes, the backbone gives an image the same features in every epoch. So
each image passes through it once, without augmentation, and the last layer is trained on the stored
features. Except for rounding, the result equals training through the frozen backbone on the same
pixels. Augmentation would need a backbone pass for every version, and a last layer has too few
weights to benefit from it (docs/pipeline.md has the numbers). The features are stored in a file, so
that memory use does not grow with the number of images.

The backbone keeps the weights and the batch-normalization statistics of the base model (it stays in
evaluation mode).
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import nn

from tasks.core.models.backbones import head_parameter_names
from tasks.core.models.device import make_deterministic, on_device, uses_bfloat16
from tasks.core.models.predictor import Normalization
from tasks.core.models.spec import ModelSpec
from tasks.core.parallel.progress import track
from tasks.core.training.config import Augmentation, TrainConfig
from tasks.core.training.data.dataset import ImageDataset
from tasks.core.training.data.pixel_cache import RowFile, RowWriter
from tasks.core.training.distributed import device_of_rank
from tasks.core.training.fit import FitResult, fit
from tasks.core.training.out_of_memory import predict_with_oom_backoff
from tasks.core.training.strategy import Strategy
from tasks.core.training.training_state import hash_weights

_BATCH_SIZE = 64
_TOLERANCE = 1e-3  # allowed difference between logits from features and the network's own
_NO_AUGMENTATION = Augmentation(
    flip=0,
    rotation_deg=0,
    shear_deg=0,
    scale=(1, 1),
    shift=0,
    brightness=0,
    contrast=0,
    saturation=0,
    gray=0,
)


class HeadOnly(Strategy):
    """Strategy that changes only the weights of the head."""

    name = "head"

    def trainable(self, module: nn.Module) -> list[str]:
        """Return the names of the head's weights."""
        return head_parameter_names(module)

    def freezes(self, module: nn.Module) -> bool:
        """Return True: evaluation mode, even if the module is only the last layer."""
        return True


class Head(nn.Module):
    """A network's last layer, from flat features to logits.

    `layer` is shared with the network, so training it trains the network. `shape` is the layer's
    input shape without the batch dimension.
    """

    def __init__(self, layer: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.layer = layer
        self.shape = shape

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map `(N, F)` features to `(N, K)` logits; a convolution's output maps are averaged."""
        logits: torch.Tensor = self.layer(features.view(len(features), *self.shape))
        return logits.mean(dim=(2, 3)) if logits.dim() == 4 else logits


@dataclass(frozen=True)
class Backbone:
    """A frozen network from images to the input of its last layer."""

    module: nn.Module
    layer: nn.Module
    normalize: Normalization
    device: torch.device
    bfloat16: bool

    def __call__(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return `(N, …)` float32 features of `(N, S, S, C)` uint8, and `(N, K)` logits."""
        inputs_seen: list[torch.Tensor] = []
        hook = self.layer.register_forward_pre_hook(lambda _, inputs: inputs_seen.append(inputs[0]))
        try:
            autocast = torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bfloat16)
            with torch.inference_mode(), autocast:
                logits: torch.Tensor = self.module(self.normalize(pixels.to(self.device)))
        finally:
            hook.remove()
        return inputs_seen[-1].float(), logits.float()


def fit_head(
    module: nn.Module,
    spec: ModelSpec,
    train: ImageDataset,
    validation: ImageDataset,
    recipe: TrainConfig,
    strategy: HeadOnly,
    work: Path,
    from_trained: bool,
) -> FitResult:
    """Train a network's last layer on cached features and return the whole network.

    If the head is not a single layer, the network is trained through its backbone on the same
    pixels. Parameters and errors are those of `fit`; augmentation is switched off.
    """
    recipe = recipe.model_copy(update={"augmentation": _NO_AUGMENTATION})
    device = device_of_rank(recipe.device)
    make_deterministic(device)
    module = on_device(module, device).eval()
    bfloat16 = uses_bfloat16(recipe.precision, device, module)
    backbone = _backbone(module, Normalization(spec, device), device, bfloat16)
    head = None if backbone is None else _head(backbone, train)
    if backbone is None or head is None:
        return fit(module, spec, train, validation, recipe, strategy, work, from_trained)
    content = f"features {_digest(module)} bf16 {bfloat16} of"
    with (
        _features(backbone, train, content, work, "train") as train_features,
        _features(backbone, validation, content, work, "validation") as validation_features,
    ):
        fitted = fit(
            head, spec, train_features, validation_features, recipe, strategy, work, from_trained
        )
    return replace(fitted, module=module.cpu().eval())


def _backbone(
    module: nn.Module, normalize: Normalization, device: torch.device, bfloat16: bool
) -> Backbone | None:
    """Return the backbone; None if several layers hold the head's weights."""
    layer_names = {name.rpartition(".")[0] for name in head_parameter_names(module)}
    if len(layer_names) > 1:
        return None
    layer = module.get_submodule(layer_names.pop())
    return Backbone(module, layer, normalize, device, bfloat16)


def _head(backbone: Backbone, dataset: ImageDataset) -> Head | None:
    """Return the head; None if it does not reproduce the network's outputs on a few images."""
    sample = torch.from_numpy(dataset.batch(np.arange(min(4, len(dataset)))))
    features, logits = replace(backbone, bfloat16=False)(sample)
    head = Head(backbone.layer, tuple(features.shape[1:]))
    with torch.inference_mode():
        logits_of_head = head(features.flatten(1))
    matches = logits_of_head.shape == logits.shape and torch.allclose(
        logits_of_head, logits, atol=_TOLERANCE, rtol=_TOLERANCE
    )
    return head if matches else None


@contextmanager
def _features(
    backbone: Backbone, dataset: ImageDataset, content: str, work: Path, role: str
) -> Iterator[ImageDataset]:
    """Provide images' features from a file that exists for the duration of the block."""
    file = work / f"{role}-{os.getpid()}.npy"
    work.mkdir(parents=True, exist_ok=True)
    try:
        with file.open("wb") as handle:
            _write_features(handle, backbone, dataset)
        yield replace(
            dataset,
            pixels=RowFile(file),
            content=f"{content} {dataset.content}",
            rows=np.arange(len(dataset)),
        )
    finally:
        file.unlink(missing_ok=True)


def _write_features(handle: BinaryIO, backbone: Backbone, dataset: ImageDataset) -> None:
    writer: RowWriter | None = None

    def extract(rows: np.ndarray) -> np.ndarray:
        features, _ = backbone(torch.from_numpy(dataset.batch(rows)))
        flat: np.ndarray = features.flatten(1).cpu().numpy()  # (B, F)
        return flat

    parts = predict_with_oom_backoff(extract, np.arange(len(dataset)), _BATCH_SIZE, backbone.device)
    for rows, flat in track(parts, -(-len(dataset) // _BATCH_SIZE), "features"):
        writer = writer or RowWriter(handle, np.float32, (len(dataset), flat.shape[1]))
        writer.write(int(rows[0]), flat)


def _digest(module: nn.Module) -> str:
    digest = hashlib.sha256()
    hash_weights(module, digest)
    return digest.hexdigest()
