"""The lay-out of the figure of cells: as wide as a report's page, as tall as its groups ask for."""

from collections.abc import Sequence
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.image import BboxImage
from matplotlib.transforms import Bbox, TransformedBbox

_DPI = 100
_WIDEST_PX, _NARROWEST_PX = 1600, 900
_LARGEST_PANEL_PX, _SMALLEST_PANEL_PX = 170, 24
_COLUMN_GAP_PX, _ROW_GAP_PX = 14, 10
_LABEL_LETTERS, _LABEL_LETTER_PX = 16, 8.2  # longest line of a row's name; width of a letter
_LETTER_PX = 7.0  # of notes
_TITLE_SHARE = 0.72  # of the letters of a note that a line of the title holds
_INK = "#1f2328"
EDGE_PX, PANEL_GAP_PX, SCALE_X_PX = 12, 2, 26
HEAD_PX, COLUMN_NAME_PX, CELL_TITLE_PX, FOOT_PX, LINE_PX = 62, 30, 22, 74, 19


class Grid:
    """An empty figure and where everything goes, in pixels from its upper left corner.

    Parameters
    ----------
    emotions
        Names of the columns.
    groups
        Names of the rows, each a value for every grouping column.
    title, notes
        Texts above and below the cells, wrapped here to the figure's width.
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
        """Write text with its middle at `y`."""
        kept = {"va": "center", "color": _INK, "linespacing": 1.25, **style}
        self.figure.text(x / self.width_px, 1 - y / self.height_px, text, **kept)

    def picture(self, x: float, y: float, width: float, height: float, picture: np.ndarray) -> None:
        """Put a picture, stretched to `width` and `height`, with its upper left corner at (x, y).

        Without axes, which take twenty times as long to make and would have to be hidden.
        """
        box = Bbox.from_bounds(
            x / self.width_px,
            1 - (y + height) / self.height_px,
            width / self.width_px,
            height / self.height_px,
        )
        place = TransformedBbox(box, self.figure.transFigure)
        self.figure.add_artist(BboxImage(place, data=picture, interpolation="antialiased"))
