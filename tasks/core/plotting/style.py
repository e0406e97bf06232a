"""The style of all figures: colors, axes, title, legend, credit, and a reproducible PNG.

Figures use matplotlib's Agg canvas without global state. The PNG contains neither time nor version.
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

# The color-blind safe palette of Okabe and Ito.
COLORS: tuple[str, ...] = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
INK, FAINT, GRID = "#1f2933", "#68737f", "#dfe4ea"
CREDIT = "#8a1c1c"  # notices and credits stand out
WIDTH_INCHES = 12
DPI = 150
# Fallbacks, if installed, for names of groups in scripts that the first font lacks.
_FONTS = ("DejaVu Sans", "Noto Sans CJK KR", "Noto Sans CJK JP", "NanumGothic", "Malgun Gothic")
LONGEST_LABEL, _LONGEST_LINE = 60, 300  # characters of a tick label, and of any other line
_MISSING_GLYPH = re.compile(r"Glyph (\d+) ")


def mark(color: str, label: str, symbol: str = "o") -> Line2D:
    """Return a legend handle: a symbol on a line."""
    return Line2D([], [], color=color, marker=symbol, linewidth=1.6, markersize=6, label=label)


def quiet_axes(axis: Axes, grid: str = "x") -> None:
    """Remove frames and ticks, and draw a faint grid along `grid` (x, y or both)."""
    axis.grid(axis=grid, color=GRID, linewidth=0.8)  # type: ignore[arg-type]
    axis.set_axisbelow(True)
    axis.tick_params(length=0, labelsize=9.5, labelcolor=INK)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.spines["bottom"].set_color(GRID)


def save(
    figure: Figure, path: Path, title: str, credit: str, handles: Sequence[Line2D] = ()
) -> None:
    """Fit a figure's panels between title, legend (`handles`) and credit, and write the PNG.

    The title has one or two lines. `credit` has the notices and credits of the data sets, or is "".
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
        with as_written(figure):  # missing letters are logged by `write_png`
            figure.tight_layout(rect=(0, 0.3 / height if credit else 0, 1, top))
    write_png(figure, path, credit)


def write_png(figure: Figure, path: Path, credit: str) -> None:
    """Write a finished layout as PNG with its credit as the footer."""
    height = figure.get_size_inches()[1]
    figure.set_facecolor("white")
    figure.text(0.012, 0.1 / height, credit, fontsize=9, va="bottom", color=CREDIT)
    FigureCanvasAgg(figure)
    with as_written(figure, path.name), atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=DPI, metadata={"Software": None})


def empty_figure(path: Path, text: str, credit: str) -> None:
    """Write a figure with a text that explains why there is nothing to plot."""
    figure = Figure(figsize=(WIDTH_INCHES, 2))
    figure.text(0.5, 0.5, text, ha="center", va="center", fontsize=12, color=FAINT)
    save(figure, path, "", credit)


@contextmanager
def as_written(figure: Figure, name: str = "") -> Iterator[None]:
    """Draw the texts of a figure literally, with all installed fonts.

    A dollar sign in a name does not start a formula, control characters are shown as escapes, and
    overlong texts are truncated. With `name`, letters that no font has are logged. Every figure
    must be laid out and saved in this context.
    """
    for text in figure.findobj(Text):
        text.set_fontfamily(_installed_fonts())
        text.set_parse_math(False)
        text.set_text(_drawable(text.get_text(), _LONGEST_LINE))
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if isinstance(formatter := axis.get_major_formatter(), FuncFormatter):
                axis.set_major_formatter(_Labels(formatter))
    # Tick labels are created while drawing and read this setting.
    with (
        rc_context({"text.parse_math": False}),
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always")
        yield
    missing = set()
    for warning in caught:
        if match := _MISSING_GLYPH.match(str(warning.message)):
            missing.add(match[1])
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    if missing and name:
        letters = "".join(chr(int(number)) for number in sorted(missing, key=int))
        logging.getLogger(__name__).warning(
            "%s: no installed font has the letters %s, which are boxes there; install one that "
            "has them, such as Noto Sans CJK",
            name,
            letters,
        )


class _Labels(FuncFormatter):
    """The labels of another formatter, made drawable."""

    def __init__(self, formatter: FuncFormatter) -> None:
        super().__init__(lambda value, pos: _drawable(formatter(value, pos), LONGEST_LABEL))


def _drawable(text: str, longest: int) -> str:
    lines = (printable(line) for line in text.split("\n"))
    return "\n".join(line if len(line) <= longest else f"{line[: longest - 1]}…" for line in lines)


@cache
def _installed_fonts() -> list[str]:
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return [name for name in _FONTS if name in installed]
