"""One figure a model: a row a group, a column an emotion, and in each cell the two panels.

The left panel is the mean of the cell's pictures, in grey, with the mean of their positive weights
in red; the right one shows in yellow how often each place is among a picture's top superpixels.
The colour scales are fixed, so that the cells of two models can be compared.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tasks.core.figure_style import as_written
from tasks.core.files import atomic_path
from tasks.core.labels import credit_line
from tasks.explain.explanation_table import mean_r2
from tasks.explain.figure_grid import (
    CELL_TITLE_PX,
    COLUMN_NAME_PX,
    EDGE_PX,
    FOOT_PX,
    HEAD_PX,
    LINE_PX,
    PANEL_GAP_PX,
    SCALE_X_PX,
    Grid,
)
from tasks.explain.overlay import Overlay, Panels

Cell = tuple[str, ...]  # emotion, then the group's values

_INK, _FAINT, _FEW, _EMPTY = "#1f2328", "#6a737d", "#b31d28", 0.93
_PNG_LEVEL = 3  # half the time of the usual 6 for a tenth more bytes


@dataclass(frozen=True)
class Texts:
    """What the figure says beside its cells."""

    title: str
    notes: Sequence[str]


def figure_texts(
    model: str, summary: pd.DataFrame, low_r2: float, datasets: Iterable[str]
) -> Texts:
    """Say what the figure shows, how well LIME's fits hold, and whose pictures they are.

    Parameters
    ----------
    model
        The model's name.
    summary
        One row a cell.
    low_r2
        An adjusted R² below this counts as low.
    datasets
        The explained pictures' data sets.
    """
    n = int(summary["n_pictures"].sum())
    title = f"LIME, model {model}: what speaks for the answer"
    if not n:
        note = f"Model {model} reads no held-out picture correctly, so nothing was explained."
        return Texts(title + " (n = 0)", [note])
    low = int(summary["n_low_r2"].sum())
    fit = (
        f"Correctly read held-out pictures only. R² is the mean fit of LIME's linear surrogate "
        f"(over all pictures {mean_r2(summary):.2f}); adjusted for the number of superpixels it is "
        f"below {low_r2:g} for {low} of {n} pictures, whose maps say little."
    )
    return Texts(f"{title} (n = {n} pictures)", [fit, *filter(None, [credit_line(datasets)])])


def draw_cells(
    summary: pd.DataFrame,
    overlays: Mapping[Cell, Overlay],
    by: Sequence[str],
    pictures_per_group: int,
    texts: Texts,
) -> Figure:
    """Draw the figure.

    Parameters
    ----------
    summary
        One row a cell, in the order of rows and columns: `emotion`, the columns of `by`,
        `n_held_out`, `r2_mean`.
    overlays
        The overlaid pictures of each cell that has any.
    by
        Columns whose values make the groups.
    pictures_per_group
        How many pictures a cell was to have; one with fewer says so.
    texts
        Title, and notes below the cells (credits, notices).
    """
    groups = list(dict.fromkeys(summary[list(by)].itertuples(index=False, name=None)))
    grid = Grid(list(summary["emotion"].unique()), groups, texts.title, texts.notes)
    grid.text(EDGE_PX, 24, grid.title, fontsize=13, fontweight="bold")
    if not grid.emotions:
        message = "No picture was held out with an emotion that the model can name."
        grid.text(EDGE_PX, HEAD_PX + 20, message, fontsize=11)
    for column, emotion in enumerate(grid.emotions):
        centre = grid.left(column) + grid.panel_px + PANEL_GAP_PX / 2
        line = grid.top - COLUMN_NAME_PX / 3
        style = {"ha": "center", "va": "baseline", "fontsize": 12, "fontweight": "bold"}
        grid.text(centre, line, emotion, **style)
    for row, group in enumerate(grid.groups):
        middle = grid.upper(row) + CELL_TITLE_PX + grid.panel_px / 2
        grid.text(EDGE_PX, middle, "\n".join(grid.label(group)), fontsize=11)
    for _, entry in summary.iterrows():
        group = tuple(entry[column] for column in by)
        cell = (entry["emotion"], *group)
        x, y = grid.left(grid.emotions.index(cell[0])), grid.upper(grid.groups.index(group))
        _draw_cell(grid, (x, y), entry, overlays.get(cell), pictures_per_group)
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
    pictures_per_group: int,
) -> None:
    x, y = corner
    panels_y = y + CELL_TITLE_PX
    if overlay is None:
        grid.picture(x, panels_y, grid.cell_px, grid.panel_px, np.full((1, 1, 3), _EMPTY))
        says = f"none correct\nof {entry['n_held_out']}" if entry["n_held_out"] else "no pictures"
        middle = panels_y + grid.panel_px / 2
        grid.text(x + grid.cell_px / 2, middle, says, ha="center", fontsize=10, color=_FAINT)
        return
    few = overlay.n < pictures_per_group
    says = f"n = {overlay.n} of {pictures_per_group}" if few else f"n = {overlay.n}"
    title_y = y + CELL_TITLE_PX / 2
    grid.text(x, title_y, says, fontsize=10, color=_FEW if few else _INK)
    fit = f"R² {entry['r2_mean']:.2f}"
    grid.text(x + grid.cell_px, title_y, fit, ha="right", fontsize=9, color=_FAINT)
    panels = overlay.panels()
    second = x + grid.panel_px + PANEL_GAP_PX
    for left, picture in ((x, panels.red()), (second, panels.yellow())):
        grid.picture(left, panels_y, grid.panel_px, grid.panel_px, picture)


def _draw_foot(grid: Grid) -> None:
    ramp = np.linspace(0, 1, 128)[None]
    grey = np.full((1, 128, 3), 128.0)
    panels = Panels(grey, ramp, ramp)
    y = grid.foot + 12
    labels = (
        (SCALE_X_PX, panels.red(), "positive weight, each picture's largest = 1, mean over n"),
        (
            SCALE_X_PX + grid.width_px / 2,
            panels.yellow(),
            "share of the n pictures in which it is a top superpixel",
        ),
    )
    for x, picture, meaning in labels:
        grid.picture(x, y, 150, 12, picture)
        grid.text(x - 4, y + 6, "0", ha="right", fontsize=9)
        grid.text(x + 154, y + 6, "1", fontsize=9)
        grid.text(x, y + 25, meaning, fontsize=9)
    for number, line in enumerate(grid.notes):
        grid.text(EDGE_PX, grid.foot + FOOT_PX - 8 + number * LINE_PX, line, fontsize=9.5)
