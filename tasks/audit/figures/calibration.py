"""Reliability diagrams: accuracy against confidence, one panel per group."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tasks.audit.figures.recall import PANELS_AT_MOST, model_marks
from tasks.core.labels import ALL
from tasks.core.plotting.style import (
    COLORS,
    FAINT,
    INK,
    WIDTH_INCHES,
    empty_figure,
    quiet_axes,
    save,
)

_COLUMNS = 3
_WORST = 11  # groups that have a panel where there are too many
_PLAIN = ("age_band", "gender", ALL)  # whose groups speak for themselves


def calibration_figure(
    table: pd.DataFrame, title: str, credit: str, path: Path, left_out: Mapping[str, str]
) -> None:
    """Draw accuracy against confidence in bins, one panel per group and one line per model.

    `table` holds the rows of `calibration_table` of one protocol. Where it is empty, the figure
    gives the reasons in `left_out` (see `reasons_uncalibrated`). `title` describes the images.
    """
    if table.empty:
        reasons = ";\n".join(dict.fromkeys(left_out.values()))
        empty_figure(path, f"Calibration cannot be estimated: {reasons}", credit)
        return
    models = list(dict.fromkeys(table["model"]))
    panels, left = _panels(table)
    lines = -(-len(panels) // _COLUMNS)
    figure = Figure(figsize=(WIDTH_INCHES, 1.2 + 4.4 * lines))
    axes = figure.subplots(lines, _COLUMNS, squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, panel in zip(axes.flat, panels, strict=False):
        dimension, group = panel
        of_panel = (table["dimension"] == dimension) & (table["group"] == group)
        _panel(axis, table[of_panel], models)
        word = group if dimension in _PLAIN else f"{dimension} {group}"
        axis.set_title(
            str(word).replace("_", " "),
            fontsize=11,
            loc="left",
            color=INK,
            fontweight="bold",
            pad=8 + 13 * len(models),
        )
    level = 100 * float(table["confidence"].iloc[0])
    words = (
        "How often answers of each confidence are right; below the diagonal the model is surer "
        f"than it is right.\n{title[:1].upper()}{title[1:]}; bars: {level:g} % intervals; larger "
        "marks: more pictures"
    )
    if left:
        words += (
            f"\nshown are the groups with the largest error; {left} others are in calibration.csv"
        )
    save(figure, path, words, credit, model_marks(models))


def _panels(table: pd.DataFrame) -> tuple[list[tuple[str, str]], int]:
    """Choose the groups that get a panel; return them and the number of the others.

    Of more than `PANELS_AT_MOST`, all images together and the groups with the largest error of any
    model: a hundred panels are not read.
    """
    summaries = table[table["bin"] == ALL]
    losses = summaries.groupby(["dimension", "group"], sort=False)["ece_loss"].max()
    if len(losses) <= PANELS_AT_MOST:
        return list(losses.index), 0
    worst = losses.drop((ALL, ALL), errors="ignore").nlargest(_WORST).index
    chosen = [panel for panel in losses.index if panel == (ALL, ALL) or panel in worst]
    return chosen, len(losses) - len(chosen)


def _panel(axis: Axes, part: pd.DataFrame, models: Sequence[str]) -> None:
    """Draw one group."""
    axis.plot([0, 100], [0, 100], color=FAINT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    labels = []
    for index, model in enumerate(models):
        model_rows = part[part["model"] == model]
        summary, bins = model_rows[model_rows["bin"] == ALL], model_rows[model_rows["bin"] != ALL]
        if summary.empty:
            continue
        _line(axis, bins, COLORS[index % len(COLORS)])
        labels.append((_error_label(summary.iloc[0]), COLORS[index % len(COLORS)]))
    for index, (text, color) in enumerate(labels):
        note = axis.annotate(
            text,
            (0, 1),
            xycoords="axes fraction",
            xytext=(0, 4 + 13 * (len(labels) - 1 - index)),
            textcoords="offset points",
            color=color,
            fontsize=9,
        )
        note.set_in_layout(False)  # else the panel shrinks to its text
    axis.set_xlim(0, 102)
    axis.set_ylim(0, 102)
    axis.set_aspect("equal")
    axis.set_xticks([0, 25, 50, 75, 100])
    axis.set_yticks([0, 25, 50, 75, 100])
    quiet_axes(axis, "both")
    axis.set_xlabel("confidence, %", color=FAINT)
    axis.set_ylabel("right answers, %", color=FAINT)


def _line(axis: Axes, bins: pd.DataFrame, color: str) -> None:
    """Draw one model's bins, with the interval of their accuracy."""
    sure, right = 100 * bins["confidence_mean"], 100 * bins["accuracy"]
    low = sure - 100 * bins["overconfidence_ci_high"]
    high = sure - 100 * bins["overconfidence_ci_low"]
    axis.vlines(sure, low, high, color=color, linewidth=1, alpha=0.35, zorder=2)
    axis.plot(sure, right, color=color, linewidth=1.3, zorder=3)
    sizes = 8 + 70 * bins["n"] / bins["n"].sum()
    axis.scatter(sure, right, s=sizes, color=color, zorder=4, clip_on=False)


def _error_label(summary: pd.Series) -> str:
    """Return a model's calibration error in a group, with the number of images."""
    if pd.isna(summary["ece_loss"]):
        return f"calibration error not known of one person, n = {int(summary['n'])}"
    text = f"calibration error {100 * summary['ece_loss']:.1f}"
    if pd.notna(summary["ci_low"]):
        text += f" ({100 * summary['ci_low']:.1f} to {100 * summary['ci_high']:.1f})"
    return f"{text} points, n = {int(summary['n'])}"
