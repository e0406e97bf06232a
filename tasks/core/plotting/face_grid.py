"""A grid of faces with the models' answers: image with boxes, crop, and one bar per class.

The report shows random test images, `affectgap predict --figure` a user's images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from PIL import Image

from tasks.core.labels import in_order
from tasks.core.plotting.style import COLORS, FAINT, GRID, INK, WIDTH_INCHES, write_png

Box = tuple[float, float, float, float]  # left, top, right, bottom
THUMBNAIL_PX = 480  # longer side

_COLUMNS = 2
# Inches. A cell has a heading, and below it image, crop and bars side by side.
_LEFT, _TOP, _FOOT = 0.2, 0.55, 0.35
_CELL, _HEADING, _SIDE, _GAP, _BELOW = 5.95, 0.46, 1.85, 0.12, 0.42
_NAMES, _BARS = 0.85, 0.8  # widths of the class names and the bars
_LONGEST_HEADING = 38  # characters
_OWN_BOX, _OTHER_BOX = "#00c48c", "#f2f4f7"


@dataclass(frozen=True)
class Answer:
    """One model's answer for a face: the emotion, and the probability of each label."""

    emotion: str
    probabilities: Mapping[str, float]


@dataclass(frozen=True)
class Shown:
    """One cell of the figure."""

    heading: str
    detail: str  # a second line
    image: np.ndarray | None  # (H, W, 3) uint8, see `thumbnail`
    boxes: tuple[Box, ...] = ()  # of all faces, in pixels of `image`
    own: int | None = None  # index of the box that the cell is about
    crop: np.ndarray | None = None  # (S, S, 3) uint8; None if there is no face
    answers: Mapping[str, Answer] | None = None  # by model, in the same order in every cell
    label: str | None = None  # of the image, if known
    note: str = ""  # shown instead of crop and bars


def thumbnail(image: Image.Image, boxes: Sequence[Box]) -> tuple[np.ndarray, tuple[Box, ...]]:
    """Scale an RGB image and its boxes down to a longer side of at most `THUMBNAIL_PX`.

    The image is returned as `(H, W, 3)` uint8.
    """
    scale = min(1.0, THUMBNAIL_PX / max(image.size))
    if scale < 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    moved = tuple((x0 * scale, y0 * scale, x1 * scale, y1 * scale) for x0, y0, x1, y1 in boxes)
    return np.asarray(image), moved


def faces_figure(cells: Sequence[Shown], names: Sequence[str], credit: str, path: Path) -> None:
    """Draw at least one cell as a PNG, two per line.

    `names` are the models in the `answers` of every cell, for the legend; `credit` is the footer.
    """
    lines = -(-len(cells) // _COLUMNS)
    line = _HEADING + _SIDE + _BELOW
    foot = _FOOT + 0.16 * credit.count("\n")
    height = _TOP + lines * line + foot
    figure = Figure(figsize=(WIDTH_INCHES, height))
    for index, cell in enumerate(cells):
        left = _LEFT + index % _COLUMNS * _CELL
        top = height - _TOP - index // _COLUMNS * line
        _draw_cell(figure, cell, names, left, top)
    handles = [
        Line2D([], [], color=color, linewidth=7, label=f"{name}, probability in %")
        for name, color in zip(names, COLORS, strict=False)
    ]
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0.005, 1),
        ncols=len(handles),
        frameon=False,
        fontsize=10,
    )
    write_png(figure, path, credit)


def _draw_cell(figure: Figure, cell: Shown, names: Sequence[str], left: float, top: float) -> None:
    """Draw a cell with its upper left corner in inches from the figure's lower left."""
    height = figure.get_size_inches()[1]

    def axes(x: float, width: float) -> Axes:
        bottom = top - _HEADING - _SIDE
        rectangle = (x / WIDTH_INCHES, bottom / height, width / WIDTH_INCHES, _SIDE / height)
        return figure.add_axes(rectangle)

    x, y = left / WIDTH_INCHES, top / height
    heading = _shortened(cell.heading)
    plain: dict[str, Any] = {"va": "top"}
    figure.text(x, y, heading, fontsize=10.5, fontweight="bold", color=INK, **plain)
    second = y - 0.2 / height
    figure.text(x, second, cell.detail, fontsize=9, color=FAINT, **plain)
    if cell.image is not None:
        _draw_image(axes(left, _SIDE), cell)
    crop = axes(left + _SIDE + _GAP, _SIDE)
    crop.axis("off")
    if cell.crop is None:
        crop.text(0, 1, cell.note, fontsize=10, color=FAINT, **plain)
        return
    crop.imshow(cell.crop)
    bars = left + 2 * (_SIDE + _GAP) + _NAMES
    _draw_bars(axes(bars, _BARS), cell, names)


def _draw_image(axis: Axes, cell: Shown) -> None:
    assert cell.image is not None
    axis.imshow(cell.image)
    axis.set_anchor("NW")
    axis.axis("off")
    for index, (x0, y0, x1, y1) in enumerate(cell.boxes):
        color, width = (_OWN_BOX, 2.0) if index == cell.own else (_OTHER_BOX, 1.0)
        axis.add_patch(
            Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=color, linewidth=width)
        )


def _draw_bars(axis: Axes, cell: Shown, names: Sequence[str]) -> None:
    answers = [(cell.answers or {})[name] for name in names]
    labels = in_order({label for answer in answers for label in answer.probabilities})
    thickness = 0.8 / len(answers)
    for index, answer in enumerate(answers):
        shares = [100 * answer.probabilities.get(label, 0.0) for label in labels]
        y = np.arange(len(labels)) + (index - (len(answers) - 1) / 2) * thickness
        axis.barh(y, shares, height=thickness, color=COLORS[index])
    axis.set_yticks(range(len(labels)), labels, fontsize=8.5, color=INK)
    bold = {cell.label} if cell.label else {answer.emotion for answer in answers}
    for tick, label in zip(axis.get_yticklabels(), labels, strict=True):
        tick.set_fontweight("bold" if label in bold else "normal")
    axis.set_ylim(len(labels) - 0.4, -0.6)
    axis.set_xlim(0, 100)
    axis.set_xticks([0, 50, 100])
    axis.tick_params(length=0, labelsize=8.5, labelcolor=FAINT)
    axis.tick_params(axis="y", labelcolor=INK)
    axis.grid(axis="x", color=GRID)
    axis.set_axisbelow(True)
    for side in axis.spines.values():
        side.set_visible(False)
    for index, answer in enumerate(answers):
        wrong = cell.label is not None and answer.emotion != cell.label
        axis.annotate(
            _verdict(answer, cell.label),
            (0, 1),
            xytext=(-60, 22 - 13 * index),  # points: above the names of the classes
            xycoords="axes fraction",
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=COLORS[index],
            fontweight="bold" if wrong else "normal",
        )


def _verdict(answer: Answer, label: str | None) -> str:
    if label is not None:
        return f"{'right' if answer.emotion == label else 'wrong'}: {answer.emotion}"
    return f"{answer.emotion}, {100 * answer.probabilities[answer.emotion]:.0f} %"


def _shortened(text: str) -> str:
    """Drop the middle of a long name; names of files often differ at the end."""
    if len(text) <= _LONGEST_HEADING:
        return text
    half = _LONGEST_HEADING // 2
    return f"{text[: half - 1]}…{text[-half:]}"
