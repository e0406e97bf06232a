"""Forest plot of the odds ratios of a right answer, one per factor level."""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from tasks.audit.figures.recall import model_marks, model_word
from tasks.audit.settings import UNITS
from tasks.core.plotting.style import (
    COLORS,
    FAINT,
    INK,
    LONGEST_LABEL,
    WIDTH_INCHES,
    empty_figure,
    quiet_axes,
    save,
)

_WIDEST = 1000.0  # odds ratios beyond are clipped
_TICKS = (0.001, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 1000.0)
_FINE = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 7.0, 10.0)  # where few of these fit
_LABELS_POINTS = 40  # height of the axis' numbers and label
_WIDTH = 150  # characters of a line below the panel


@dataclass(frozen=True)
class _Line:
    """One line: a factor's heading (no rows), or a level with its row of each model."""

    label: str
    rows: dict[str, pd.Series]


def factors_figure(table: pd.DataFrame, title: str, credit: str, path: Path) -> None:
    """Draw odds ratios with their intervals, grouped by factor, one mark per model.

    `table` holds the rows of `factors_table` of one protocol. Where there is no odds ratio, the
    figure gives the reason. `title` describes the images.
    """
    drawn = table[table["odds_ratio"].notna()]
    if drawn.empty:
        notes = list(dict.fromkeys(table["note"].dropna())) or ["there are no predictions"]
        empty_figure(path, f"No model of the factors: {notes[0]}", credit)
        return
    models = list(dict.fromkeys(drawn["model"]))
    lines = list(_lines(drawn))
    below = list(_wrapped(_left_out(table)))
    foot = 0.75 + 0.19 * len(below)
    figure = Figure(figsize=(WIDTH_INCHES, 1.3 + 0.3 * len(lines) + foot))
    axis = figure.subplots()
    for place, line in enumerate(lines):
        _draw_line(axis, place, line, models)
    _finish(axis, lines, drawn)
    _notes(axis, below)
    level = 100 * float(drawn["confidence"].iloc[0])
    words = f"Odds of a right answer, every other factor held the same (bars: {level:g} % intervals"
    save(figure, path, f"{words}),\n{title}", credit, model_marks(models))


def _lines(drawn: pd.DataFrame) -> Iterator[_Line]:
    """Yield the lines from the top down: a heading and its levels, for a number one line."""
    for factor in dict.fromkeys(drawn["factor"]):
        of_factor = drawn[drawn["factor"] == factor]
        if factor in UNITS:
            levels = list(dict.fromkeys(of_factor["level"]))
            unit = levels[0] if len(levels) == 1 else "per SD"
            rows = {row["model"]: row for _, row in of_factor.iterrows()}
            yield _Line(f"{_word(factor)}, {unit}", rows)
            continue
        for reference in dict.fromkeys(of_factor["reference"]):
            part = of_factor[of_factor["reference"] == reference]
            yield _Line(f"{_word(factor)}, against {reference}", {})
            for level in dict.fromkeys(part["level"]):
                rows = {row["model"]: row for _, row in part[part["level"] == level].iterrows()}
                yield _Line(f"    {level}", rows)


def _word(factor: str) -> str:
    return factor.removesuffix("_px").removesuffix("_years").replace("_", " ")


def _draw_line(axis: Axes, place: int, line: _Line, models: Sequence[str]) -> None:
    """Draw one level: each model's odds ratio and interval, and how many images it has."""
    shift = 0.34 / max(len(models) - 1, 1)
    for index, model in enumerate(models):
        if model not in line.rows:
            continue
        row, at = line.rows[model], place + shift * (index - (len(models) - 1) / 2)
        ends = np.clip([row["ci_low"], row["ci_high"]], 1 / _WIDEST, _WIDEST)
        axis.plot(
            ends,
            [at, at],
            color=COLORS[index % len(COLORS)],
            linewidth=1.6,
            solid_capstyle="butt",
        )
        middle = np.clip(row["odds_ratio"], 1 / _WIDEST, _WIDEST)
        axis.plot([middle], [at], "o", color=COLORS[index % len(COLORS)], markersize=4.8, zorder=3)
    if line.rows:
        counts = " / ".join(str(line.rows[m]["n"]) if m in line.rows else "–" for m in models)
        axis.annotate(
            counts,
            (1.012, place),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=8.5,
            color=FAINT,
            annotation_clip=False,
        )


def _finish(axis: Axes, lines: Sequence[_Line], drawn: pd.DataFrame) -> None:
    """Scale and label the axes."""
    axis.set_xscale("log")
    low = float(np.clip(drawn["ci_low"].min(), 1 / _WIDEST, 0.5))
    high = float(np.clip(drawn["ci_high"].max(), 2.0, _WIDEST))
    axis.set_xlim(low / 1.15, high * 1.15)
    ticks = _TICKS if high / low > 30 else _FINE
    axis.set_xticks([tick for tick in ticks if low / 1.15 <= tick <= high * 1.15])
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_ylim(len(lines) - 0.4, -0.9)
    axis.set_yticks(range(len(lines)), [line.label for line in lines])
    quiet_axes(axis)
    for line, label in zip(lines, axis.get_yticklabels(), strict=True):
        label.set_horizontalalignment("left")
        label.set_fontweight("normal" if line.label.startswith(" ") else "bold")
    longest = min(max(len(line.label) for line in lines), LONGEST_LABEL)
    axis.tick_params(axis="y", pad=5.9 * longest)
    axis.axvline(1, color=INK, linewidth=0.8)
    words = "odds ratio, logarithmic: left of 1 less often right, right of 1 more often"
    axis.set_xlabel(words, color=FAINT, labelpad=6)
    axis.annotate(
        "n",
        (1.012, -0.75),
        xycoords=("axes fraction", "data"),
        fontsize=8.5,
        color=FAINT,
        style="italic",
        annotation_clip=False,
    )


def _notes(axis: Axes, lines: Sequence[str]) -> None:
    """Write lines below the panel and its label; the layout leaves space for them."""
    for index, text in enumerate(lines):
        axis.annotate(
            text,
            (0.012, 0),
            xycoords=("figure fraction", "axes fraction"),
            xytext=(0, -_LABELS_POINTS - 13.5 * index),
            textcoords="offset points",
            va="top",
            fontsize=9,
            color=FAINT,
            annotation_clip=False,
        )


def _left_out(table: pd.DataFrame) -> Iterator[str]:
    """Yield what has no mark with the reason; models that share a reason are listed together."""
    rows = table[table["odds_ratio"].isna()]
    total = table["model"].nunique()
    named: dict[tuple[str, str], list[str]] = {}
    for row in rows.itertuples():
        level = f" {row.level}" if isinstance(row.level, str) and row.level else ""
        named.setdefault((f"{row.factor}{level}", str(row.note)), []).append(str(row.model))
    by_reason: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (what, why), models in named.items():
        by_reason.setdefault((why, tuple(models)), []).append(what)
    for (why, models), whats in by_reason.items():
        of = "" if len(models) == total else f" ({', '.join(model_word(m) for m in models)})"
        yield f"Not shown: {', '.join(whats)}{of}: {why}."


def _wrapped(texts: Iterator[str]) -> Iterator[str]:
    for text in texts:
        yield from textwrap.wrap(text, _WIDTH)
