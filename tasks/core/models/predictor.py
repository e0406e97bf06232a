"""Inference: face crops in, emotion probabilities out.

Explanations perturb the prepared image, so the two steps are separate: `prepare` resizes to the
network's input, `predict_prepared` runs the network. An image's probabilities do not depend on the
others in its batch, except that the last bits depend on the batch size, since libraries select
kernels by size. Use one batch size to reproduce the same bits.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tasks.core.errors import ModelError
from tasks.core.models.checkpoint import load_model
from tasks.core.models.device import choose_device, on_device
from tasks.core.models.label_order import find_output_fault, probe_pixels
from tasks.core.models.spec import CHANNELS, ModelSpec
from tasks.core.text import one_line

_LUMA = (19595, 38470, 7471)  # ITU-R 601-2 in 65536ths, as Pillow's mode "L"


class EmotionClassifier:
    """An emotion classifier: a network with its spec, on a device.

    Parameters
    ----------
    module
        The network; set to evaluation mode here.
    batch_size
        Images per pass.
    origin
        Where the model is from, for messages; defaults to its architecture.
    """

    def __init__(
        self,
        spec: ModelSpec,
        module: nn.Module,
        device: torch.device,
        batch_size: int = 64,
        origin: Path | str = "",
    ) -> None:
        self.spec = spec
        self.origin = origin or f"the model '{spec.architecture}'"
        self.device = device
        self.batch_size = batch_size
        self.module = on_device(module, device).eval()
        self._normalize = Normalization(spec, device)

    @classmethod
    def load(cls, folder: Path, device: str, batch_size: int = 64) -> "EmotionClassifier":
        """Load a model's folder; raise ModelError (see `load_model`, `choose_device`)."""
        module, spec = load_model(folder)
        return cls(spec, module, choose_device(device), batch_size, folder)

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the emotions in the order of the probabilities."""
        return self.spec.labels

    def prepare(self, crops: np.ndarray) -> np.ndarray:
        """Resize crops to the network's input; see `prepare`."""
        return prepare(crops, self.spec)

    def predict_prepared(self, prepared: np.ndarray) -> np.ndarray:
        """Return `(N, K)` float32 probabilities of `(N, S, S, C)` uint8 from `prepare`.

        Columns are in the order of `labels`; each row sums to 1. Raises ModelError if an output is
        not finite or not one number per label.
        """
        parts = [np.zeros((0, len(self.labels)), dtype=np.float32)]
        with torch.inference_mode():
            for start in range(0, len(prepared), self.batch_size):
                batch = torch.from_numpy(_for_torch(prepared[start : start + self.batch_size]))
                logits = self.module(self._normalize(batch.to(self.device)))
                check_outputs(logits, len(batch), self.spec, self.origin)
                parts.append(functional.softmax(logits.float(), dim=1).cpu().numpy())
        return np.concatenate(parts)

    def predict(self, crops: np.ndarray) -> np.ndarray:
        """Prepare crops `(N, H, W, 3)` uint8 and predict; see `predict_prepared`."""
        return self.predict_prepared(self.prepare(crops))


def check_outputs(logits: torch.Tensor, n_images: int, spec: ModelSpec, origin: Path | str) -> None:
    """Raise ModelError if a network's outputs are not finite or not one number per label."""
    if logits.shape != (n_images, len(spec.labels)):
        raise ModelError(
            f"{origin}: gives {tuple(logits.shape)} numbers for {n_images} pictures, but has "
            f"{len(spec.labels)} labels"
        )
    if not bool(torch.isfinite(logits).all()):
        raise ModelError(f"{origin}: {find_output_fault(logits.float().cpu().numpy(), 'logits')}")


def probe(module: nn.Module, spec: ModelSpec, origin: Path | str) -> None:
    """Check a network's outputs for two of the probe images; see `check_outputs`.

    `module` must be in evaluation mode on the CPU; `origin` is for messages.
    """
    pixels = torch.from_numpy(probe_pixels(spec.input_size_px, CHANNELS[spec.color])[:2])
    with torch.inference_mode():
        try:
            logits = module(Normalization(spec, torch.device("cpu"))(pixels))
        except RuntimeError as error:
            raise ModelError(
                f"{origin}: cannot process pictures of {spec.input_size_px} px ({one_line(error)})"
            ) from None
    check_outputs(logits, len(pixels), spec, origin)


class Normalization:
    """Converts `(N, S, S, C)` bytes (or floats, 0..255) to the network's input, channels last."""

    def __init__(self, spec: ModelSpec, device: torch.device) -> None:
        mean = torch.tensor(spec.mean, dtype=torch.float32, device=device)
        std = torch.tensor(spec.std, dtype=torch.float32, device=device)
        self.scale = 1.0 / (255.0 * std)
        self.offset = -mean / std

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return `(N, C, S, S)` float32 in channels-last memory."""
        n_images, height, width, n_channels = pixels.shape
        # By rows of pixels, since iterating over a last dimension of three is slow.
        rows = pixels.reshape(n_images * height, width * n_channels).float()
        scale, offset = self.scale.repeat(width), self.offset.repeat(width)
        normalized = torch.addcmul(offset, rows, scale).view(pixels.shape).permute(0, 3, 1, 2)
        return normalized.contiguous(memory_format=torch.channels_last)


def prepare(crops: np.ndarray, spec: ModelSpec) -> np.ndarray:
    """Convert face crops `(N, H, W, 3)` uint8 RGB to the network's input size and color.

    Returns `(N, S, S, C)` uint8. Resizing is bilinear, with antialiasing if the crop is larger than
    the input; gray is ITU-R 601 luma.
    """
    if spec.color == "gray":
        crops = (np.dot(crops.astype(np.uint32), np.array(_LUMA, dtype=np.uint32)) + 32768) >> 16
        crops = crops[..., None].astype(np.uint8)
    elif spec.color == "bgr":
        crops = crops[..., ::-1]
    if crops.shape[1:3] == (spec.input_size_px, spec.input_size_px):
        return np.ascontiguousarray(crops)
    pixels = torch.from_numpy(_for_torch(crops)).permute(0, 3, 1, 2)
    size = (spec.input_size_px, spec.input_size_px)
    resized = functional.interpolate(
        pixels, size, mode="bilinear", align_corners=False, antialias=True
    )
    return np.ascontiguousarray(resized.permute(0, 2, 3, 1).numpy())


def _for_torch(pixels: np.ndarray) -> np.ndarray:
    return np.require(pixels, np.uint8, ["C", "W"])  # torch warns of arrays it may not write to
