"""Train-time augmentation of a batch, with changes of its own for each picture.

torchvision's v2 transforms draw one set of changes for a whole batched tensor, and a change a
picture costs one pass each; here the geometry of a picture is one affine map and its colour one
matrix. On a CPU OpenCV does both on bytes, several pictures side by side (a fifth of the time that
torch's own operations take); elsewhere a batch takes one `grid_sample` and one matrix product. The
two differ by rounding, a grey level or so. What is drawn depends on the seed and the epoch alone.
"""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch.nn import functional

from tasks.train.recipe import Augmentation

_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601


@dataclass(frozen=True)
class Changes:
    """What happens to each of N pictures.

    Attributes
    ----------
    affine
        `(N, 2, 3)` float32: output coordinates (-1..1) to input coordinates.
    colour
        `(N, C, C)` float32: what a pixel (a column of channels) is multiplied with.
    contrast
        `(N, 1, 1)` float32: factor around the picture's mean luma.
    """

    affine: torch.Tensor
    colour: torch.Tensor
    contrast: torch.Tensor

    def of(self, rows: np.ndarray, device: torch.device) -> "Changes":
        """Take some rows' changes to a device, without waiting for it."""
        index = torch.from_numpy(rows)
        parts = [part[index] for part in (self.affine, self.colour, self.contrast)]
        if device.type == "cuda":  # only such memory is copied without a wait
            parts = [part.pin_memory() for part in parts]
        return Changes(*(part.to(device, non_blocking=True) for part in parts))


def draw_changes(
    ranges: Augmentation, n_pictures: int, n_channels: int, rng: np.random.Generator
) -> Changes:
    """Draw each picture's changes.

    Parameters
    ----------
    ranges
        What is drawn from.
    n_pictures
        How many pictures.
    n_channels
        3, or 1 for grey pictures, whose saturation does not change.
    rng
        The only source of chance.
    """
    turn = np.deg2rad(rng.uniform(-ranges.rotation_deg, ranges.rotation_deg, n_pictures))
    size = rng.uniform(*ranges.scale, n_pictures)
    # Coordinates run from -1 to 1, so that a shift by the whole side is 2.
    shift = 2 * rng.uniform(-ranges.shift, ranges.shift, (n_pictures, 2))
    mirror = np.where(rng.random(n_pictures) < ranges.flip, -1.0, 1.0)
    brightness, contrast, saturation = (
        rng.uniform(1 - share, 1 + share, n_pictures)
        for share in (ranges.brightness, ranges.contrast, ranges.saturation)
    )
    saturation = np.where(rng.random(n_pictures) < ranges.grey, 0.0, saturation)
    slant = np.tan(np.deg2rad(rng.uniform(-ranges.shear_deg, ranges.shear_deg, n_pictures)))
    colour = brightness[:, None, None] * _saturation(saturation, n_channels)
    return Changes(
        torch.from_numpy(_affine(turn, size, slant, mirror, shift).astype(np.float32)),
        torch.from_numpy(colour.astype(np.float32)),
        torch.from_numpy(contrast.astype(np.float32)[:, None, None]),
    )


def augment(pixels: torch.Tensor, changes: Changes) -> torch.Tensor:
    """Change each picture of a batch in its own way.

    Parameters
    ----------
    pixels
        `(N, S, S, C)` uint8.
    changes
        One row a picture, on the same device.

    Returns
    -------
    torch.Tensor
        `(N, S, S, C)` uint8; what a turn uncovers repeats the border.
    """
    return (
        _by_opencv(pixels, changes) if pixels.device.type == "cpu" else _by_torch(pixels, changes)
    )


def _by_torch(pixels: torch.Tensor, changes: Changes) -> torch.Tensor:
    n_pictures, side, _, n_channels = pixels.shape
    batch = pixels.permute(0, 3, 1, 2).float()
    grid = functional.affine_grid(
        changes.affine, [n_pictures, n_channels, side, side], align_corners=False
    )
    moved = functional.grid_sample(
        batch, grid, mode="bicubic", padding_mode="border", align_corners=False
    )
    channels = moved.reshape(n_pictures, n_channels, -1)  # (N, C, S * S)
    weights = _luma(n_channels).to(pixels.device, non_blocking=True)  # (1, C)
    mean_luma = weights @ changes.colour @ channels.mean(dim=2, keepdim=True)  # (N, 1, 1)
    offset = (1 - changes.contrast) * mean_luma
    coloured = torch.baddbmm(offset, changes.contrast * changes.colour, channels)
    coloured = coloured.round_().clamp_(0, 255).to(torch.uint8)
    return coloured.reshape(moved.shape).permute(0, 2, 3, 1)


def _by_opencv(pixels: torch.Tensor, changes: Changes) -> torch.Tensor:
    n_pictures, side, _, n_channels = pixels.shape
    source, out = pixels.numpy(), torch.empty_like(pixels)
    target = out.numpy()
    maps = _in_pixels(changes.affine.double().numpy(), side)
    colours = (changes.contrast * changes.colour).double().numpy()  # (N, C, C)
    # From a picture's mean channels to what its contrast adds: (N, 1, C)
    lumas = ((1 - changes.contrast) * (_luma(n_channels) @ changes.colour)).double().numpy()

    def change(first: int, last: int) -> None:
        for row in range(first, last):
            moved = _moved(source[row], maps[row])
            offset = lumas[row] @ cv2.mean(moved)[:n_channels]
            matrix = np.column_stack([colours[row], np.repeat(offset, n_channels)])
            target[row] = cv2.transform(moved, matrix).reshape(side, side, n_channels)

    _side_by_side(change, n_pictures)
    return out


def _moved(picture: np.ndarray, affine: np.ndarray) -> np.ndarray:
    colour = picture.shape[2] == 3
    if colour:  # a fourth channel costs nothing and makes each pixel one word: twice as fast
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2RGBA)
    moved = cv2.warpAffine(
        picture,
        affine,
        picture.shape[1::-1],
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
        hint=cv2.ALGO_HINT_APPROX,
    )
    return cv2.cvtColor(moved, cv2.COLOR_RGBA2RGB) if colour else moved


def _side_by_side(change: Callable[[int, int], None], n_pictures: int) -> None:
    """Share rows among as many threads as torch has; OpenCV frees the interpreter meanwhile."""
    n_threads = min(torch.get_num_threads(), n_pictures)
    if n_threads == 1:
        change(0, n_pictures)
        return
    borders = [n_pictures * part // n_threads for part in range(n_threads + 1)]
    for done in _pool(n_threads).map(change, borders[:-1], borders[1:]):
        assert done is None


@functools.cache
def _pool(n_threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n_threads, thread_name_prefix="augment")


def _affine(
    turn: np.ndarray, size: np.ndarray, slant: np.ndarray, mirror: np.ndarray, shift: np.ndarray
) -> np.ndarray:
    """Return `(N, 2, 3)`: a shift after a mirror after a turn (and a size) after a slant."""
    cosine, sine = np.cos(turn) / size, np.sin(turn) / size
    across = np.stack([cosine * mirror, (slant * cosine - sine) * mirror, shift[:, 0]], axis=1)
    down = np.stack([sine, slant * sine + cosine, shift[:, 1]], axis=1)
    return np.stack([across, down], axis=1)


def _in_pixels(affine: np.ndarray, side: int) -> np.ndarray:
    """Turn maps between coordinates -1..1 into maps between pixels, whose centres are whole."""
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
    luma = np.repeat(np.array(_LUMA)[None, :], 3, axis=0)  # luma @ columns = grey pixels
    share = factor[:, None, None]
    return share * np.eye(3) + (1 - share) * luma
