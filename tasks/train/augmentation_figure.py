"""Figure of the network's training input: sample crops and their augmented versions.

It uses the same order, random draws and normalization (undone for display) as training, so errors
in the input are visible here.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from PIL import Image

from tasks.core.imaging.shards import read_crops
from tasks.core.labels import credit_line, in_order
from tasks.core.models.predictor import Normalization
from tasks.core.models.spec import ModelSpec
from tasks.core.paths import Paths
from tasks.core.plotting.style import DPI, FAINT, INK, WIDTH_INCHES, empty_figure, write_png
from tasks.core.training.config import Augmentation, TrainConfig
from tasks.core.training.data.augmentation import augment
from tasks.core.training.data.dataset import ImageDataset
from tasks.core.training.data.loader import draw_epoch, repeat_index
from tasks.core.training.strategy import Strategy

_EPOCHS, _LINES = 6, 7
_LEFT, _SIDE, _GAP, _HEAD, _FOOT = 0.95, 1.32, 0.04, 0.95, 0.35  # inches


def augmentation_figure(
    dataset: ImageDataset,
    rows: pd.DataFrame,
    spec: ModelSpec,
    recipe: TrainConfig,
    paths: Paths,
    path: Path,
) -> None:
    """Draw one row per label: a crop, its plain input, and its input in the first epochs.

    `images` and `rows` are the training images and their rows of the split table, in the same
    order.
    """
    chosen = choose_lines(rows, recipe.seed)
    chosen_rows = rows.iloc[chosen]
    crops = list(read_crops(chosen_rows, paths.crop_shards))
    plain = list(_as_displayed(torch.from_numpy(dataset.batch(chosen)), spec))
    epochs = range(1, min(_EPOCHS, recipe.epochs) + 1)
    changed = [changed_inputs(dataset, chosen, spec, recipe, epoch) for epoch in epochs]
    titles = ["crop", f"input, {spec.input_size_px} px", *(f"epoch {n}" for n in epochs)]
    figure = _figure([crops, plain, *changed], titles, list(chosen_rows["emotion"]))
    _title(figure, recipe.augmentation)
    write_png(figure, path, credit_line(chosen_rows["dataset"]))


def placeholder_figure(why: str, path: Path) -> None:
    """Write a placeholder figure for a run that uses the base model unchanged."""
    empty_figure(path, f"Nothing was augmented: {why}", "")


def choose_lines(rows: pd.DataFrame, seed: int) -> np.ndarray:
    """Choose one image per label: `(L,)` row positions, in the vocabulary's order.

    The choice depends only on the seed and each image. At most seven labels are displayed.
    """
    ranks = [hashlib.sha256(f"{seed}:{name}".encode()).digest() for name in rows["image_id"]]
    first: dict[str, int] = {}
    for position in sorted(range(len(rows)), key=ranks.__getitem__):
        first.setdefault(str(rows["emotion"].iloc[position]), position)
    return np.array([first[label] for label in in_order(first)[:_LINES]], dtype=np.int64)


def changed_inputs(
    dataset: ImageDataset,
    chosen: np.ndarray,
    spec: ModelSpec,
    recipe: TrainConfig,
    epoch: int,
) -> list[np.ndarray | None]:
    """Return the network's input for the images `chosen` in an epoch (from 1) of plain training.

    Each entry is `(S, S, C)` uint8, normalized and converted back. It is None for an image that a
    balanced epoch did not contain. If an image occurs more than once, the first occurrence is
    returned.
    """
    rng = np.random.default_rng([recipe.seed, epoch])
    order = Strategy().order(dataset, rng)
    drawn = draw_epoch(dataset, order, recipe.augmentation, rng)
    assert drawn.changes is not None
    repeats = repeat_index(order)
    inputs: list[np.ndarray | None] = []
    for row in chosen:
        positions = np.flatnonzero(order == row)
        if len(positions) == 0:
            inputs.append(None)
            continue
        changes = drawn.changes.of(repeats[positions[:1]], torch.device("cpu"))
        pixels = torch.from_numpy(dataset.batch(np.array([row])))
        inputs.append(_as_displayed(augment(pixels, changes), spec)[0])
    return inputs


def _as_displayed(pixels: torch.Tensor, spec: ModelSpec) -> np.ndarray:
    """Apply the network's normalization to `(N, S, S, C)` and undo it: `(N, S, S, C)` uint8."""
    x = Normalization(spec, torch.device("cpu"))(pixels)  # (N, C, S, S)
    mean, std = torch.tensor(spec.mean), torch.tensor(spec.std)
    back = (x.permute(0, 2, 3, 1) * std + mean) * 255
    return back.round().clamp(0, 255).to(torch.uint8).numpy()


def _figure(
    columns: Sequence[Sequence[np.ndarray | None]], titles: Sequence[str], labels: Sequence[str]
) -> Figure:
    """Lay out the images below column titles and beside row labels."""
    step = _SIDE + _GAP
    height = _HEAD + len(labels) * step + _FOOT
    figure = Figure(figsize=(WIDTH_INCHES, height))
    for column, (title, images) in enumerate(zip(titles, columns, strict=True)):
        left = _LEFT + column * step + (0.1 if column else 0)  # separates the crop
        bottom = height - _HEAD - len(labels) * step
        across, up = (left / WIDTH_INCHES, _SIDE / WIDTH_INCHES), bottom / height
        axis = figure.add_axes((across[0], up, across[1], len(labels) * step / height))
        axis.axis("off")
        axis.imshow(_stack_vertically(images), aspect="auto", interpolation="nearest")
        axis.set_title(title, fontsize=9.5, color=INK, pad=4)
    for row, label in enumerate(labels):
        middle = height - _HEAD - row * step - _SIDE / 2
        position = (0.12 / WIDTH_INCHES, middle / height)
        figure.text(*position, label, fontsize=9.5, color=INK, va="center")
    return figure


def _stack_vertically(images: Sequence[np.ndarray | None]) -> np.ndarray:
    """Stack images of any size with white gaps; None gives a white cell."""
    side, gap = round(_SIDE * DPI), round(_GAP * DPI)
    column = np.full((len(images), side + gap, side, 3), 255, dtype=np.uint8)
    for cell, image in zip(column, images, strict=True):
        if image is not None:
            cell_image = Image.fromarray(image.squeeze()).convert("RGB")
            cell[:side] = cell_image.resize((side, side), Image.Resampling.BICUBIC)
    return column.reshape(-1, side, 3)


def _title(figure: Figure, ranges: Augmentation) -> None:
    height = figure.get_size_inches()[1]
    title = "Input of the network: one picture per label, in the first epochs"
    x = 0.12 / WIDTH_INCHES
    figure.text(x, 1 - 0.13 / height, title, fontsize=13, va="top", color=INK)
    figure.text(x, 1 - 0.43 / height, in_words(ranges), fontsize=9.5, va="top", color=FAINT)


def in_words(ranges: Augmentation) -> str:
    """Return the augmentation ranges as one line."""
    low, high = ranges.scale
    return ", ".join(
        [
            f"flip p = {ranges.flip:g}",
            f"turn ±{ranges.rotation_deg:g}°",
            f"shear ±{ranges.shear_deg:g}°",
            f"size × {low:g} to {high:g}",
            f"shift ±{100 * ranges.shift:g} %",
            f"brightness ±{100 * ranges.brightness:g} %",
            f"contrast ±{100 * ranges.contrast:g} %",
            f"saturation ±{100 * ranges.saturation:g} %",
            f"gray p = {ranges.gray:g}",
        ]
    )
