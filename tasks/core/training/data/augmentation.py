"""Train-time augmentation of a batch, with independent parameters for each image.

torchvision's v2 transforms draw one set of parameters for a whole batched tensor, and one call per
image is slow. Here the geometry of an image is one affine map and its color change one matrix. On a
CPU OpenCV applies both to bytes in several threads (a fifth of the time of torch's operations); on
other devices a batch takes one `grid_sample` and one matrix product. The two differ by rounding, by
about one gray level. The draws depend only on the seed and the epoch.
"""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch.nn import functional

from tasks.core.training.config import Augmentation

_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601


@dataclass(frozen=True)
class AugmentParams:
    """Augmentation parameters of N images.

    Attributes
    ----------
    affine
        `(N, 2, 3)` float32: maps output coordinates (-1..1) to input coordinates.
    color
        `(N, C, C)` float32: matrix applied to each pixel (a column of channels).
    contrast
        `(N, 1, 1)` float32: factor around the image's mean luma.
    """

    affine: torch.Tensor
    color: torch.Tensor
    contrast: torch.Tensor

    def of(self, rows: np.ndarray, device: torch.device) -> "AugmentParams":
        """Return the parameters of some rows on a device, without waiting for the copy."""
        index = torch.from_numpy(rows)
        parts = [part[index] for part in (self.affine, self.color, self.contrast)]
        if device.type == "cuda":  # only pinned memory is copied asynchronously
            parts = [part.pin_memory() for part in parts]
        return AugmentParams(*(part.to(device, non_blocking=True) for part in parts))


def sample_augmentations(
    ranges: Augmentation, n_images: int, n_channels: int, rng: np.random.Generator
) -> AugmentParams:
    """Draw the parameters of each image.

    `n_channels` is 3, or 1 for gray images, whose saturation does not change.
    """
    rotation = np.deg2rad(rng.uniform(-ranges.rotation_deg, ranges.rotation_deg, n_images))
    scale = rng.uniform(*ranges.scale, n_images)
    # Coordinates run from -1 to 1, so a shift by the full side is 2.
    shift = 2 * rng.uniform(-ranges.shift, ranges.shift, (n_images, 2))
    flip = np.where(rng.random(n_images) < ranges.flip, -1.0, 1.0)
    brightness, contrast, saturation = (
        rng.uniform(1 - share, 1 + share, n_images)
        for share in (ranges.brightness, ranges.contrast, ranges.saturation)
    )
    saturation = np.where(rng.random(n_images) < ranges.gray, 0.0, saturation)
    shear = np.tan(np.deg2rad(rng.uniform(-ranges.shear_deg, ranges.shear_deg, n_images)))
    color = brightness[:, None, None] * _saturation(saturation, n_channels)
    return AugmentParams(
        torch.from_numpy(_affine(rotation, scale, shear, flip, shift).astype(np.float32)),
        torch.from_numpy(color.astype(np.float32)),
        torch.from_numpy(contrast.astype(np.float32)[:, None, None]),
    )


def augment(pixels: torch.Tensor, changes: AugmentParams) -> torch.Tensor:
    """Augment each image of a batch; pixels outside the input repeat its border.

    `pixels` and the result are `(N, S, S, C)` uint8; `changes` has one row per image, on the same
    device.
    """
    return (
        _by_opencv(pixels, changes) if pixels.device.type == "cpu" else _by_torch(pixels, changes)
    )


def _by_torch(pixels: torch.Tensor, changes: AugmentParams) -> torch.Tensor:
    n_images, side, _, n_channels = pixels.shape
    batch = pixels.permute(0, 3, 1, 2).float()
    grid = functional.affine_grid(
        changes.affine, [n_images, n_channels, side, side], align_corners=False
    )
    moved = functional.grid_sample(
        batch, grid, mode="bicubic", padding_mode="border", align_corners=False
    )
    channels = moved.reshape(n_images, n_channels, -1)  # (N, C, S * S)
    weights = _luma(n_channels).to(pixels.device, non_blocking=True)  # (1, C)
    mean_luma = weights @ changes.color @ channels.mean(dim=2, keepdim=True)  # (N, 1, 1)
    offset = (1 - changes.contrast) * mean_luma
    recolored = torch.baddbmm(offset, changes.contrast * changes.color, channels)
    recolored = recolored.round_().clamp_(0, 255).to(torch.uint8)
    return recolored.reshape(moved.shape).permute(0, 2, 3, 1)


def _by_opencv(pixels: torch.Tensor, changes: AugmentParams) -> torch.Tensor:
    n_images, side, _, n_channels = pixels.shape
    source, out = pixels.numpy(), torch.empty_like(pixels)
    target = out.numpy()
    maps = _to_pixel_maps(changes.affine.double().numpy(), side)
    color_matrices = (changes.contrast * changes.color).double().numpy()  # (N, C, C)
    # Map an image's mean channels to its contrast offset: (N, 1, C)
    lumas = ((1 - changes.contrast) * (_luma(n_channels) @ changes.color)).double().numpy()

    def change(first: int, last: int) -> None:
        for row in range(first, last):
            moved = _warp(source[row], maps[row])
            offset = lumas[row] @ cv2.mean(moved)[:n_channels]
            matrix = np.column_stack([color_matrices[row], np.repeat(offset, n_channels)])
            target[row] = cv2.transform(moved, matrix).reshape(side, side, n_channels)

    _run_in_threads(change, n_images)
    return out


def _warp(image: np.ndarray, affine: np.ndarray) -> np.ndarray:
    is_color = image.shape[2] == 3
    if is_color:  # a fourth channel costs nothing and makes each pixel one word: twice as fast
        image = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA)
    moved = cv2.warpAffine(
        image,
        affine,
        image.shape[1::-1],
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
        hint=cv2.ALGO_HINT_APPROX,
    )
    return cv2.cvtColor(moved, cv2.COLOR_RGBA2RGB) if is_color else moved


def _run_in_threads(change: Callable[[int, int], None], n_images: int) -> None:
    """Split rows among torch's number of threads; OpenCV releases the interpreter lock."""
    n_threads = min(torch.get_num_threads(), n_images)
    if n_threads == 1:
        change(0, n_images)
        return
    borders = [n_images * part // n_threads for part in range(n_threads + 1)]
    for done in _pool(n_threads).map(change, borders[:-1], borders[1:]):
        assert done is None


@functools.cache
def _pool(n_threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n_threads, thread_name_prefix="augment")


def _affine(
    rotation: np.ndarray, scale: np.ndarray, shear: np.ndarray, flip: np.ndarray, shift: np.ndarray
) -> np.ndarray:
    """Return `(N, 2, 3)`: shear, then rotation and scale, then flip, then shift."""
    cosine, sine = np.cos(rotation) / scale, np.sin(rotation) / scale
    across = np.stack([cosine * flip, (shear * cosine - sine) * flip, shift[:, 0]], axis=1)
    down = np.stack([sine, shear * sine + cosine, shift[:, 1]], axis=1)
    return np.stack([across, down], axis=1)


def _to_pixel_maps(affine: np.ndarray, side: int) -> np.ndarray:
    """Convert maps between coordinates -1..1 to maps between pixel centers."""
    maps = affine.copy()
    middle = (side - 1) / 2
    maps[:, :, 2] = side / 2 * affine[:, :, 2] + middle * (1 - affine[:, :, :2].sum(axis=2))
    return maps


def _luma(n_channels: int) -> torch.Tensor:
    return torch.tensor([_LUMA if n_channels == 3 else (1.0,)])


def _saturation(factor: np.ndarray, n_channels: int) -> np.ndarray:
    """Return `(N, C, C)` matrices that mix each pixel (a column of channels) with its luma."""
    if n_channels != 3:
        return np.ones((len(factor), 1, 1))
    luma = np.repeat(np.array(_LUMA)[None, :], 3, axis=0)  # luma @ columns = gray pixels
    share = factor[:, None, None]
    return share * np.eye(3) + (1 - share) * luma
