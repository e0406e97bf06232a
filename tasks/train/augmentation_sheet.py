"""Figure of what the network is shown: a training picture, and its input in the first epochs.

Drawn with the same order, the same draws and the same normalisation (undone again) as the training
itself, so that what looks wrong here is wrong there.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from PIL import Image

from tasks.core.figure_style import DPI, FAINT, INK, WIDTH_INCHES, empty_figure, write_png
from tasks.core.labels import credit_line, in_order
from tasks.core.models.recogniser import Normalisation
from tasks.core.models.spec import ModelSpec
from tasks.core.paths import Paths
from tasks.core.shards import read_crops
from tasks.train.augmentation import augment
from tasks.train.batches import draw_epoch, showings
from tasks.train.pictures import Pictures
from tasks.train.recipe import Augmentation, Recipe
from tasks.train.strategy import Strategy

_EPOCHS, _LINES = 6, 7
_LEFT, _SIDE, _GAP, _HEAD, _FOOT = 0.95, 1.32, 0.04, 0.95, 0.35  # inches


def augmentation_sheet(
    pictures: Pictures,
    rows: pd.DataFrame,
    spec: ModelSpec,
    recipe: Recipe,
    paths: Paths,
    path: Path,
) -> None:
    """Draw a line a picture: its crop, its input as it is, and as the first epochs changed it.

    Parameters
    ----------
    pictures
        Those that are trained on.
    rows
        Theirs in the split table, in the same order.
    spec
        The input's size, colour and normalisation.
    recipe
        Its seed and augmentation.
    paths
        Where the crops are.
    path
        The PNG.
    """
    chosen = choose_lines(rows, recipe.seed)
    some = rows.iloc[chosen]
    crops = list(read_crops(some, paths.crop_shards))
    plain = list(_shown(torch.from_numpy(pictures.batch(chosen)), spec))
    epochs = range(1, min(_EPOCHS, recipe.epochs) + 1)
    changed = [changed_inputs(pictures, chosen, spec, recipe, epoch) for epoch in epochs]
    heads = ["crop", f"input, {spec.input_size_px} px", *(f"epoch {n}" for n in epochs)]
    figure = _figure([crops, plain, *changed], heads, list(some["emotion"]))
    _title(figure, recipe.augmentation)
    write_png(figure, path, credit_line(some["dataset"]))


def nothing_trained(why: str, path: Path) -> None:
    """Write the figure of a run in which the base model is taken as it is."""
    empty_figure(path, f"Nothing was augmented: {why}", "")


def choose_lines(rows: pd.DataFrame, seed: int) -> np.ndarray:
    """Choose a picture a label: `(L,)` positions among the rows, in the vocabulary's order.

    Which one follows from the seed and each picture alone; at most seven labels are shown.
    """
    ranks = [hashlib.sha256(f"{seed}:{name}".encode()).digest() for name in rows["image_id"]]
    first: dict[str, int] = {}
    for position in sorted(range(len(rows)), key=ranks.__getitem__):
        first.setdefault(str(rows["emotion"].iloc[position]), position)
    return np.array([first[label] for label in in_order(first)[:_LINES]], dtype=np.int64)


def changed_inputs(
    pictures: Pictures,
    chosen: np.ndarray,
    spec: ModelSpec,
    recipe: Recipe,
    epoch: int,
) -> list[np.ndarray | None]:
    """Return what the network got of some pictures in an epoch of a plain training.

    Parameters
    ----------
    pictures, chosen
        All that are trained on, and which of them.
    spec, recipe
        As for `augmentation_sheet`.
    epoch
        From 1.

    Returns
    -------
    list
        `(S, S, C)` uint8 each, normalised and back; None for a picture that a balanced epoch did
        not show. Of one that it showed more than once the first.
    """
    rng = np.random.default_rng([recipe.seed, epoch])
    order = Strategy().order(pictures, rng)
    drawn = draw_epoch(pictures, order, recipe.augmentation, rng)
    assert drawn.changes is not None
    shown = showings(order)
    inputs: list[np.ndarray | None] = []
    for row in chosen:
        steps = np.flatnonzero(order == row)
        if len(steps) == 0:
            inputs.append(None)
            continue
        changes = drawn.changes.of(shown[steps[:1]], torch.device("cpu"))
        pixels = torch.from_numpy(pictures.batch(np.array([row])))
        inputs.append(_shown(augment(pixels, changes), spec)[0])
    return inputs


def _shown(pixels: torch.Tensor, spec: ModelSpec) -> np.ndarray:
    """Normalise `(N, S, S, C)` as for the network, and undo it: `(N, S, S, C)` uint8."""
    x = Normalisation(spec, torch.device("cpu"))(pixels)  # (N, C, S, S)
    mean, std = torch.tensor(spec.mean), torch.tensor(spec.std)
    back = (x.permute(0, 2, 3, 1) * std + mean) * 255
    return back.round().clamp(0, 255).to(torch.uint8).numpy()


def _figure(
    columns: Sequence[Sequence[np.ndarray | None]], heads: Sequence[str], labels: Sequence[str]
) -> Figure:
    """Lay out the pictures under their columns' heads and beside their lines' labels."""
    step = _SIDE + _GAP
    height = _HEAD + len(labels) * step + _FOOT
    figure = Figure(figsize=(WIDTH_INCHES, height))
    for column, (head, pictures) in enumerate(zip(heads, columns, strict=True)):
        left = _LEFT + column * step + (0.1 if column else 0)  # the crop stands apart
        bottom = height - _HEAD - len(labels) * step
        across, up = (left / WIDTH_INCHES, _SIDE / WIDTH_INCHES), bottom / height
        axis = figure.add_axes((across[0], up, across[1], len(labels) * step / height))
        axis.axis("off")
        axis.imshow(_one_below_the_other(pictures), aspect="auto", interpolation="nearest")
        axis.set_title(head, fontsize=9.5, color=INK, pad=4)
    for line, label in enumerate(labels):
        middle = height - _HEAD - line * step - _SIDE / 2
        place = (0.12 / WIDTH_INCHES, middle / height)
        figure.text(*place, label, fontsize=9.5, color=INK, va="center")
    return figure


def _one_below_the_other(pictures: Sequence[np.ndarray | None]) -> np.ndarray:
    """Stack pictures of any size, white between them; one that there is none of stays white."""
    side, gap = round(_SIDE * DPI), round(_GAP * DPI)
    column = np.full((len(pictures), side + gap, side, 3), 255, dtype=np.uint8)
    for place, picture in zip(column, pictures, strict=True):
        if picture is not None:
            image = Image.fromarray(picture.squeeze()).convert("RGB")
            place[:side] = image.resize((side, side), Image.Resampling.BICUBIC)
    return column.reshape(-1, side, 3)


def _title(figure: Figure, ranges: Augmentation) -> None:
    height = figure.get_size_inches()[1]
    title = "What the network is shown: a picture of each label, in the first epochs"
    x = 0.12 / WIDTH_INCHES
    figure.text(x, 1 - 0.13 / height, title, fontsize=13, va="top", color=INK)
    figure.text(x, 1 - 0.43 / height, in_words(ranges), fontsize=9.5, va="top", color=FAINT)


def in_words(ranges: Augmentation) -> str:
    """Say in a line what is drawn from which range."""
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
            f"grey p = {ranges.grey:g}",
        ]
    )
