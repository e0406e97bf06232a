"""How every figure looks: colors, axes, title, legend and credit, and a PNG with the same bytes.

Drawn with matplotlib's Agg canvas and no global state; neither time nor version is written.
"""

import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from matplotlib import font_manager, rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter

from tasks.core.files import atomic_path
from tasks.core.text import printable

# Okabe and Ito's colors, which readers with any color vision tell apart.
COLOURS: tuple[str, ...] = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
INK, FAINT, GRID = "#1f2933", "#68737f", "#dfe4ea"
CREDIT = "#8a1c1c"  # notices and credits stand out
WIDTH_INCHES = 12
DPI = 150
# For names of groups in other scripts than the first font has; those that are installed are used.
_FONTS = ("DejaVu Sans", "Noto Sans CJK KR", "Noto Sans CJK JP", "NanumGothic", "Malgun Gothic")
# Characters of a tick's label, and of any other line: a title or a credit has fewer.
LONGEST_LABEL, _LONGEST_LINE = 60, 300
_MISSING_GLYPH = re.compile(r"Glyph (\d+) ")


def mark(colour: str, label: str, symbol: str = "o") -> Line2D:
    """Return a legend's handle: a symbol on a line."""
    return Line2D([], [], color=colour, marker=symbol, linewidth=1.6, markersize=6, label=label)


def quiet_axes(axis: Axes, grid: str = "x") -> None:
    """Take away what distracts: frames and ticks; leave a faint grid along `grid` (x, y, both)."""
    axis.grid(axis=grid, color=GRID, linewidth=0.8)  # type: ignore[arg-type]
    axis.set_axisbelow(True)
    axis.tick_params(length=0, labelsize=9.5, labelcolor=INK)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.spines["bottom"].set_color(GRID)


def save(
    figure: Figure, path: Path, title: str, credit: str, handles: Sequence[Line2D] = ()
) -> None:
    """Lay out title, legend, panels and credit, and write the PNG.

    Parameters
    ----------
    figure
        With its panels drawn; they are fitted between legend and credit.
    path
        The PNG.
    title
        What is shown, one or two lines.
    credit
        Notices and credits of the data sets; "" for none.
    handles
        The legend's, which stands below a title of one line.
    """
    height = figure.get_size_inches()[1]
    lines = title.count("\n")
    figure.text(0.012, 1 - 0.13 / height, title, fontsize=13, va="top", color=INK)
    if handles:
        figure.legend(
            handles=list(handles),
            loc="upper left",
            bbox_to_anchor=(0.005, 1 - (0.36 + 0.24 * lines) / height),
            ncols=len(handles),
            frameon=False,
            fontsize=10,
        )
    top = 1 - (0.45 + 0.27 * lines + 0.27 * bool(handles)) / height
    FigureCanvasAgg(figure)
    if figure.axes:
        with as_written(figure):  # said once, when it is written
            figure.tight_layout(rect=(0, 0.3 / height if credit else 0, 1, top))
    write_png(figure, path, credit)


def write_png(figure: Figure, path: Path, credit: str) -> None:
    """Write a figure that is laid out already, with its credit at the foot."""
    height = figure.get_size_inches()[1]
    figure.set_facecolor("white")
    figure.text(0.012, 0.1 / height, credit, fontsize=9, va="bottom", color=CREDIT)
    FigureCanvasAgg(figure)
    with as_written(figure, path.name), atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=DPI, metadata={"Software": None})


def empty_figure(path: Path, text: str, credit: str) -> None:
    """Write a figure that says why there is nothing to show."""
    figure = Figure(figsize=(WIDTH_INCHES, 2))
    figure.text(0.5, 0.5, text, ha="center", va="center", fontsize=12, color=FAINT)
    save(figure, path, "", credit)


@contextmanager
def as_written(figure: Figure, name: str = "") -> Iterator[None]:
    """Draw the texts of a figure as they are written, in every script that is installed.

    A dollar in the name of a group, a file or a model begins no formula, control characters are
    shown as escapes, and what is far too long to be drawn is cut. A named figure logs which letters
    no font has. Every figure is laid out and saved within this.
    """
    for text in figure.findobj(Text):
        text.set_fontfamily(_installed_fonts())
        text.set_parse_math(False)
        text.set_text(_drawable(text.get_text(), _LONGEST_LINE))
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if isinstance(formatter := axis.get_major_formatter(), FuncFormatter):
                axis.set_major_formatter(_Labels(formatter))
    # Ticks are made while drawing: they take the setting.
    with (
        rc_context({"text.parse_math": False}),
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always")
        yield
    missing = {found[1] for one in caught if (found := _MISSING_GLYPH.match(str(one.message)))}
    for one in caught:
        if not _MISSING_GLYPH.match(str(one.message)):
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    if missing and name:
        letters = "".join(chr(int(number)) for number in sorted(missing, key=int))
        logging.getLogger(__name__).warning(
            "%s: no installed font has the letters %s, which are boxes there; install one that "
            "has them, such as Noto Sans CJK",
            name,
            letters,
        )


class _Labels(FuncFormatter):
    """The labels that another formatter gives, as they can be drawn."""

    def __init__(self, given: FuncFormatter) -> None:
        super().__init__(lambda value, place: _drawable(given(value, place), LONGEST_LABEL))


def _drawable(text: str, longest: int) -> str:
    lines = (printable(line) for line in text.split("\n"))
    return "\n".join(line if len(line) <= longest else f"{line[: longest - 1]}…" for line in lines)


@cache
def _installed_fonts() -> list[str]:
    there = {font.name for font in font_manager.fontManager.ttflist}
    return [name for name in _FONTS if name in there]
