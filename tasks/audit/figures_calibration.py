"""Reliability diagrams: how often a model is right where it is so and so sure, a panel a group."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tasks.audit.model_marks import model_marks
from tasks.core.figure_style import (
    COLOURS,
    FAINT,
    INK,
    WIDTH_INCHES,
    empty_figure,
    quiet_axes,
    save,
)
from tasks.core.labels import ALL

_COLUMNS = 3
_PLAIN = ("age_band", "gender", ALL)  # whose groups speak for themselves


def calibration_figure(
    table: pd.DataFrame, title: str, credit: str, path: Path, left_out: Mapping[str, str]
) -> None:
    """Draw accuracy against confidence in bins, a panel a group, a line a model.

    Parameters
    ----------
    table
        Rows of `calibration_table`, one protocol; where there is none the figure says why.
    title
        Which pictures these are.
    credit
        Notices and credits of the data sets.
    path
        The PNG.
    left_out
        Model to why its calibration cannot be told, see `why_not_calibrated`.
    """
    if table.empty:
        reasons = ";\n".join(dict.fromkeys(left_out.values()))
        empty_figure(path, f"Calibration cannot be told: {reasons}", credit)
        return
    models = list(dict.fromkeys(table["model"]))
    panels = list(table[["dimension", "group"]].drop_duplicates().itertuples(index=False))
    lines = -(-len(panels) // _COLUMNS)
    figure = Figure(figsize=(WIDTH_INCHES, 1.2 + 4.4 * lines))
    axes = figure.subplots(lines, _COLUMNS, squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, panel in zip(axes.flat, panels, strict=False):
        of_panel = (table["dimension"] == panel.dimension) & (table["group"] == panel.group)
        _panel(axis, table[of_panel], models)
        word = panel.group if panel.dimension in _PLAIN else f"{panel.dimension} {panel.group}"
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
    save(figure, path, words, credit, model_marks(models))


def _panel(axis: Axes, part: pd.DataFrame, models: Sequence[str]) -> None:
    """Draw one group."""
    axis.plot([0, 100], [0, 100], color=FAINT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    said = []
    for index, model in enumerate(models):
        own = part[part["model"] == model]
        whole, bins = own[own["bin"] == ALL], own[own["bin"] != ALL]
        if whole.empty:
            continue
        _line(axis, bins, COLOURS[index % len(COLOURS)])
        said.append((_words(whole.iloc[0]), COLOURS[index % len(COLOURS)]))
    for index, (text, colour) in enumerate(said):
        note = axis.annotate(
            text,
            (0, 1),
            xycoords="axes fraction",
            xytext=(0, 4 + 13 * (len(said) - 1 - index)),
            textcoords="offset points",
            color=colour,
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


def _line(axis: Axes, bins: pd.DataFrame, colour: str) -> None:
    """Draw one model's bins, with the interval of their accuracy."""
    sure, right = 100 * bins["confidence_mean"], 100 * bins["accuracy"]
    low = sure - 100 * bins["overconfidence_ci_high"]
    high = sure - 100 * bins["overconfidence_ci_low"]
    axis.vlines(sure, low, high, color=colour, linewidth=1, alpha=0.35, zorder=2)
    axis.plot(sure, right, color=colour, linewidth=1.3, zorder=3)
    sizes = 8 + 70 * bins["n"] / bins["n"].sum()
    axis.scatter(sure, right, s=sizes, color=colour, zorder=4, clip_on=False)


def _words(whole: pd.Series) -> str:
    """Say a model's error in a group, and of how many pictures."""
    if pd.isna(whole["ece_loss"]):
        return f"calibration error not known of one person, n = {int(whole['n'])}"
    text = f"calibration error {100 * whole['ece_loss']:.1f}"
    if pd.notna(whole["ci_low"]):
        text += f" ({100 * whole['ci_low']:.1f} to {100 * whole['ci_high']:.1f})"
    return f"{text} points, n = {int(whole['n'])}"
