"""Train-time augmentation of a batch, with changes of its own for each picture.

torchvision's v2 transforms draw one set of changes for a whole batched tensor; here the geometry
of a picture is one affine map and its colour one 3 × 3 matrix, so that a batch takes one
`grid_sample` and one matrix product. What is drawn depends on the seed and the epoch alone.
"""

from dataclasses import dataclass

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
        """Take some rows' changes to a device."""
        index = torch.from_numpy(rows)
        parts = (self.affine, self.colour, self.contrast)
        return Changes(*(part[index].to(device) for part in parts))


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
    cosine, sine = np.cos(turn) / size, np.sin(turn) / size
    affine = np.stack(
        [
            np.stack([cosine * mirror, -sine * mirror, shift[:, 0]], axis=1),
            np.stack([sine, cosine, shift[:, 1]], axis=1),
        ],
        axis=1,
    )
    colour = brightness[:, None, None] * _saturation(saturation, n_channels)
    return Changes(
        torch.from_numpy(affine.astype(np.float32)),
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
        `(N, S, S, C)` float32 within 0..255; what a turn uncovers repeats the border.
    """
    n_pictures, side, _, n_channels = pixels.shape
    batch = pixels.permute(0, 3, 1, 2).float()
    grid = functional.affine_grid(
        changes.affine, [n_pictures, n_channels, side, side], align_corners=False
    )
    moved = functional.grid_sample(
        batch, grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    channels = moved.reshape(n_pictures, n_channels, -1)  # (N, C, S * S)
    weights = channels.new_tensor([_LUMA if n_channels == 3 else (1.0,)])  # (1, C)
    mean_luma = weights @ changes.colour @ channels.mean(dim=2, keepdim=True)  # (N, 1, 1)
    offset = (1 - changes.contrast) * mean_luma
    coloured = torch.baddbmm(offset, changes.contrast * changes.colour, channels)
    return coloured.clamp_(0, 255).reshape(moved.shape).permute(0, 2, 3, 1)


def _saturation(factor: np.ndarray, n_channels: int) -> np.ndarray:
    """Return `(N, C, C)` matrices that mix each pixel (a column of channels) with its luma."""
    if n_channels != 3:
        return np.ones((len(factor), 1, 1))
    luma = np.repeat(np.array(_LUMA)[None, :], 3, axis=0)  # luma @ columns = grey pixels
    share = factor[:, None, None]
    return share * np.eye(3) + (1 - share) * luma
