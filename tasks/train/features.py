"""Strategy `head` on features: what a frozen backbone makes of a picture is computed once.

While only the last layer changes, the backbone gives the same picture the same features in every
epoch. So each picture goes through it once, as it is, and what is trained is the last layer on
these features. The outcome is that of training through the frozen backbone on the same pixels, but
for rounding. Pictures are not augmented: that would take a pass through the backbone for every
version, and a last layer has too few weights to gain by it (docs/pipeline.md has the figures).
Features lie in a file, so that memory does not grow with the pictures.
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

from tasks.core.models.device import make_repeatable, on_device, uses_bfloat16
from tasks.core.models.head import head_parameters
from tasks.core.models.recogniser import Normalisation
from tasks.core.models.spec import ModelSpec
from tasks.core.progress import track
from tasks.train.distributed import device_of_rank
from tasks.train.head_only import HeadOnly
from tasks.train.loop import Fitted, fit
from tasks.train.memory import in_parts_that_fit
from tasks.train.pictures import Pictures
from tasks.train.pixel_cache import RowFile, RowWriter
from tasks.train.recipe import Augmentation, Recipe

_AT_ONCE = 64
_CLOSE = 1e-3  # how far answers by way of the features may be from the network's own
_NONE = Augmentation(
    flip=0,
    rotation_deg=0,
    shear_deg=0,
    scale=(1, 1),
    shift=0,
    brightness=0,
    contrast=0,
    saturation=0,
    grey=0,
)


class Head(nn.Module):
    """A network's last layer, from flat features to logits.

    Parameters
    ----------
    layer
        The layer itself, shared with the network: what is trained here is trained there.
    shape
        Of what goes into the layer, without the batch.
    """

    def __init__(self, layer: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.layer = layer
        self.shape = shape

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map `(N, F)` features to `(N, K)` logits; a layer of maps gives the maps' means."""
        answers: torch.Tensor = self.layer(features.view(len(features), *self.shape))
        return answers.mean(dim=(2, 3)) if answers.dim() == 4 else answers


@dataclass(frozen=True)
class Backbone:
    """A frozen network from pictures to the features that go into its last layer."""

    module: nn.Module
    layer: nn.Module
    normalise: Normalisation
    device: torch.device
    bfloat16: bool

    def __call__(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return `(N, …)` float32 features of `(N, S, S, C)` uint8, and `(N, K)` logits."""
        seen: list[torch.Tensor] = []
        hook = self.layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            autocast = torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bfloat16)
            with torch.inference_mode(), autocast:
                logits: torch.Tensor = self.module(self.normalise(pixels.to(self.device)))
        finally:
            hook.remove()
        return seen[-1].float(), logits.float()


def fit_head(
    module: nn.Module,
    spec: ModelSpec,
    train: Pictures,
    validation: Pictures,
    recipe: Recipe,
    strategy: HeadOnly,
    work: Path,
    from_trained: bool,
) -> Fitted:
    """Train a network's last layer as `fit` does, on features, and return the whole network.

    A network that does not end in one layer on its features is trained through its backbone, on
    the same pixels. Parameters and errors are those of `fit`; the augmentation is left out.
    """
    recipe = recipe.model_copy(update={"augmentation": _NONE})
    device = device_of_rank(recipe.device)
    make_repeatable(device)
    module = on_device(module, device).eval()
    bfloat16 = uses_bfloat16(recipe.precision, device, module)
    backbone = _backbone(module, Normalisation(spec, device), device, bfloat16)
    head = None if backbone is None else _head(backbone, train)
    if backbone is None or head is None:
        return fit(module, spec, train, validation, recipe, strategy, work, from_trained)
    seen = f"features {_digest(module)} bf16 {bfloat16} of"
    with (
        _features(backbone, train, seen, work, "train") as of_train,
        _features(backbone, validation, seen, work, "validation") as of_validation,
    ):
        fitted = fit(head, spec, of_train, of_validation, recipe, strategy, work, from_trained)
    return replace(fitted, module=module.cpu().eval())


def _backbone(
    module: nn.Module, normalise: Normalisation, device: torch.device, bfloat16: bool
) -> Backbone | None:
    """Look for the one layer that holds all of the head's weights; None where there are several."""
    places = {name.rpartition(".")[0] for name in head_parameters(module)}
    if len(places) > 1:
        return None
    layer = module.get_submodule(places.pop())
    return Backbone(module, layer, normalise, device, bfloat16)


def _head(backbone: Backbone, pictures: Pictures) -> Head | None:
    """Make the head, and see on a few pictures that it answers as the whole network does."""
    few = torch.from_numpy(pictures.batch(np.arange(min(4, len(pictures)))))
    features, logits = replace(backbone, bfloat16=False)(few)
    head = Head(backbone.layer, tuple(features.shape[1:]))
    with torch.inference_mode():
        again = head(features.flatten(1))
    near = again.shape == logits.shape and torch.allclose(again, logits, atol=_CLOSE, rtol=_CLOSE)
    return head if near else None


@contextmanager
def _features(
    backbone: Backbone, pictures: Pictures, seen: str, work: Path, role: str
) -> Iterator[Pictures]:
    """Give pictures' features, from a file that is there for the length of the block."""
    file = work / f"{role}-{os.getpid()}.npy"
    work.mkdir(parents=True, exist_ok=True)
    try:
        with file.open("wb") as handle:
            _write(handle, backbone, pictures)
        yield replace(
            pictures,
            pixels=RowFile(file),
            content=f"{seen} {pictures.content}",
            rows=np.arange(len(pictures)),
        )
    finally:
        file.unlink(missing_ok=True)


def _write(handle: BinaryIO, backbone: Backbone, pictures: Pictures) -> None:
    writer: RowWriter | None = None

    def ask(rows: np.ndarray) -> np.ndarray:
        features, _ = backbone(torch.from_numpy(pictures.batch(rows)))
        flat: np.ndarray = features.flatten(1).cpu().numpy()  # (B, F)
        return flat

    answers = in_parts_that_fit(ask, np.arange(len(pictures)), _AT_ONCE, backbone.device)
    for rows, flat in track(answers, -(-len(pictures) // _AT_ONCE), "features"):
        writer = writer or RowWriter(handle, np.float32, (len(pictures), flat.shape[1]))
        writer.write(int(rows[0]), flat)


def _digest(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
