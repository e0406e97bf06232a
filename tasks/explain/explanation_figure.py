"""LIME figure of a model: one row per group, one column per emotion, two panels per cell.

The left panel is the mean of the cell's images in gray, with the mean of their positive weights in
red. The right panel shows in yellow how often a pixel belongs to an image's top superpixels. The
color scales are fixed, so that the cells of two models can be compared.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.image import BboxImage
from matplotlib.transforms import Bbox, TransformedBbox

from tasks.core.files import atomic_path
from tasks.core.labels import credit_line
from tasks.core.plotting.style import as_written
from tasks.explain.explanation_table import mean_r2
from tasks.explain.overlay import Overlay, Panels

_DPI = 100
_WIDEST_PX, _NARROWEST_PX = 1600, 900
_LARGEST_PANEL_PX, _SMALLEST_PANEL_PX = 170, 24
_COLUMN_GAP_PX, _ROW_GAP_PX = 14, 10
_LABEL_LETTERS, _LABEL_LETTER_PX = 16, 8.2  # longest line of a row's name; width of a letter
_LETTER_PX = 7.0  # of notes
_TITLE_SHARE = 0.72  # letters in a line of the title, as a share of those in a line of notes
_FIGURE_GRID_INK = "#1f2328"
EDGE_PX, PANEL_GAP_PX, SCALE_X_PX = 12, 2, 26
HEAD_PX, COLUMN_NAME_PX, CELL_TITLE_PX, FOOT_PX, LINE_PX = 62, 30, 22, 74, 19
Cell = tuple[str, ...]  # emotion, then the group's values
_INK, _FAINT, _FEW, _EMPTY = "#1f2328", "#6a737d", "#b31d28", 0.93
_PNG_LEVEL = 3  # takes half the time of the default 6, for 10 % more bytes


class Grid:
    """An empty figure, addressed in pixels from its upper left corner.

    Columns are emotions, rows are groups (one value per grouping column). The title above and the
    notes below the cells are wrapped to the figure's width.
    """

    def __init__(
        self,
        emotions: list[str],
        groups: list[tuple[str, ...]],
        title: str,
        notes: Sequence[str],
    ) -> None:
        self.emotions = emotions
        self.groups = groups
        n_columns = max(len(self.emotions), 1)
        letters = max((len(line) for group in self.groups for line in self.label(group)), default=0)
        self.label_px = 2 * EDGE_PX + int(letters * _LABEL_LETTER_PX)
        free = _WIDEST_PX - self.label_px - EDGE_PX - n_columns * (_COLUMN_GAP_PX + PANEL_GAP_PX)
        self.panel_px = min(_LARGEST_PANEL_PX, max(_SMALLEST_PANEL_PX, free // (2 * n_columns)))
        self.cell_px = 2 * self.panel_px + PANEL_GAP_PX
        used = self.label_px + EDGE_PX + n_columns * (self.cell_px + _COLUMN_GAP_PX)
        self.width_px = max(_NARROWEST_PX, used)
        letters = int((self.width_px - 2 * EDGE_PX) / _LETTER_PX)
        self.title = "\n".join(wrap(title, int(letters * _TITLE_SHARE)))
        self.notes = [line for note in notes for line in wrap(note, letters)]
        self.top = HEAD_PX + COLUMN_NAME_PX
        self.row_px = CELL_TITLE_PX + self.panel_px + _ROW_GAP_PX
        self.foot = self.top + max(len(self.groups), 1) * self.row_px
        self.height_px = self.foot + FOOT_PX + len(self.notes) * LINE_PX
        size = (self.width_px / _DPI, self.height_px / _DPI)
        self.figure = Figure(figsize=size, dpi=_DPI, facecolor="white")

    def label(self, group: Sequence[str]) -> list[str]:
        """Return the lines that name a row."""
        return [line for name in group for line in wrap(name.replace("_", " "), _LABEL_LETTERS)]

    def left(self, column: int) -> float:
        """Return the left edge of a column."""
        return self.label_px + column * (self.cell_px + _COLUMN_GAP_PX)

    def upper(self, row: int) -> float:
        """Return the upper edge of a row."""
        return self.top + row * self.row_px

    def text(self, x: float, y: float, text: str, **style: Any) -> None:
        """Write text, vertically centered at `y` unless `style` says otherwise."""
        style = {"va": "center", "color": _FIGURE_GRID_INK, "linespacing": 1.25, **style}
        self.figure.text(x / self.width_px, 1 - y / self.height_px, text, **style)

    def image(self, x: float, y: float, width: float, height: float, image: np.ndarray) -> None:
        """Place an image, stretched to `width` and `height`, with its upper left corner at (x, y).

        It needs no axes, which take twenty times as long to create and would have to be hidden.
        """
        box = Bbox.from_bounds(
            x / self.width_px,
            1 - (y + height) / self.height_px,
            width / self.width_px,
            height / self.height_px,
        )
        frame = TransformedBbox(box, self.figure.transFigure)
        self.figure.add_artist(BboxImage(frame, data=image, interpolation="antialiased"))


@dataclass(frozen=True)
class Texts:
    """Title of the figure and notes below the cells."""

    title: str
    notes: Sequence[str]


def figure_texts(
    model: str, summary: pd.DataFrame, min_r2: float, datasets: Iterable[str]
) -> Texts:
    """Return the title, a note on the fit of LIME's surrogates, and the data sets' credits."""
    n = int(summary["n_images"].sum())
    title = f"LIME, model {model}: superpixels that support the prediction"
    if not n:
        note = f"Model {model} classifies no held-out picture correctly, so nothing was explained."
        return Texts(title + " (n = 0)", [note])
    low = int(summary["n_low_r2"].sum())
    fit = (
        f"Correctly classified held-out pictures only. R² is the mean fit of LIME's linear "
        f"surrogate (over all pictures {mean_r2(summary):.2f}). Adjusted for the number of "
        f"superpixels, it is below {min_r2:g} for {low} of {n} pictures, whose maps are unreliable."
    )
    return Texts(f"{title} (n = {n} pictures)", [fit, *filter(None, [credit_line(datasets)])])


def draw_cells(
    summary: pd.DataFrame,
    overlays: Mapping[Cell, Overlay],
    by: Sequence[str],
    images_per_group: int,
    texts: Texts,
) -> Figure:
    """Draw the figure.

    Parameters
    ----------
    summary
        One row per cell, in the order of rows and columns: `emotion`, the columns of `by`,
        `n_held_out`, `r2_mean`.
    overlays
        The overlays of the cells that have images.
    images_per_group
        Planned images per cell; cells with fewer are marked.
    """
    groups = list(dict.fromkeys(summary[list(by)].itertuples(index=False, name=None)))
    grid = Grid(list(summary["emotion"].unique()), groups, texts.title, texts.notes)
    grid.text(EDGE_PX, 24, grid.title, fontsize=13, fontweight="bold")
    if not grid.emotions:
        message = "No picture was held out with an emotion that the model knows."
        grid.text(EDGE_PX, HEAD_PX + 20, message, fontsize=11)
    for column, emotion in enumerate(grid.emotions):
        center = grid.left(column) + grid.panel_px + PANEL_GAP_PX / 2
        baseline = grid.top - COLUMN_NAME_PX / 3
        style = {"ha": "center", "va": "baseline", "fontsize": 12, "fontweight": "bold"}
        grid.text(center, baseline, emotion, **style)
    for row, group in enumerate(grid.groups):
        middle = grid.upper(row) + CELL_TITLE_PX + grid.panel_px / 2
        grid.text(EDGE_PX, middle, "\n".join(grid.label(group)), fontsize=11)
    for _, entry in summary.iterrows():
        group = tuple(entry[column] for column in by)
        cell = (entry["emotion"], *group)
        x, y = grid.left(grid.emotions.index(cell[0])), grid.upper(grid.groups.index(group))
        _draw_cell(grid, (x, y), entry, overlays.get(cell), images_per_group)
    _draw_foot(grid)
    return grid.figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, atomically; the same figure gives the same bytes."""
    options = {"compress_level": _PNG_LEVEL}
    with as_written(figure, path.name), atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None}, pil_kwargs=options)


def _draw_cell(
    grid: Grid,
    corner: tuple[float, float],
    entry: pd.Series,
    overlay: Overlay | None,
    images_per_group: int,
) -> None:
    x, y = corner
    panels_y = y + CELL_TITLE_PX
    if overlay is None:
        grid.image(x, panels_y, grid.cell_px, grid.panel_px, np.full((1, 1, 3), _EMPTY))
        title = f"none correct\nof {entry['n_held_out']}" if entry["n_held_out"] else "no pictures"
        middle = panels_y + grid.panel_px / 2
        grid.text(x + grid.cell_px / 2, middle, title, ha="center", fontsize=10, color=_FAINT)
        return
    few = overlay.n < images_per_group
    title = f"n = {overlay.n} of {images_per_group}" if few else f"n = {overlay.n}"
    title_y = y + CELL_TITLE_PX / 2
    grid.text(x, title_y, title, fontsize=10, color=_FEW if few else _INK)
    fit = f"R² {entry['r2_mean']:.2f}"
    grid.text(x + grid.cell_px, title_y, fit, ha="right", fontsize=9, color=_FAINT)
    panels = overlay.panels()
    second = x + grid.panel_px + PANEL_GAP_PX
    for left, panel in ((x, panels.red()), (second, panels.yellow())):
        grid.image(left, panels_y, grid.panel_px, grid.panel_px, panel)


def _draw_foot(grid: Grid) -> None:
    ramp = np.linspace(0, 1, 128)[None]
    panels = Panels(np.full((1, 128, 3), 128.0), ramp, ramp)
    y = grid.foot + 12
    scales = (
        (SCALE_X_PX, panels.red(), "positive weight, each picture's largest = 1, mean over n"),
        (
            SCALE_X_PX + grid.width_px / 2,
            panels.yellow(),
            "share of the n pictures in which it is a top superpixel",
        ),
    )
    for x, scale, meaning in scales:
        grid.image(x, y, 150, 12, scale)
        grid.text(x - 4, y + 6, "0", ha="right", fontsize=9)
        grid.text(x + 154, y + 6, "1", fontsize=9)
        grid.text(x, y + 25, meaning, fontsize=9)
    for number, line in enumerate(grid.notes):
        grid.text(EDGE_PX, grid.foot + FOOT_PX - 8 + number * LINE_PX, line, fontsize=9.5)
