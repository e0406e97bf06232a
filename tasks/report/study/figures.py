"""The study page's figures: one comparison per round, curves, cost, published order, test."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tasks.core.gap_sentences import percent
from tasks.core.labels import ALL
from tasks.core.plotting.style import (
    COLORS,
    FAINT,
    GRID,
    INK,
    WIDTH_INCHES,
    empty_figure,
    mark,
    quiet_axes,
    save,
)
from tasks.report.html.formatting import capital, count
from tasks.report.study.inputs import StudyInputs

OURS_COLOR, CHOSEN_COLOR, PUBLISHED_COLOR = COLORS[0], COLORS[1], COLORS[3]
ROUNDS = ("backbones", "losses", "optimizers")
_STOPPED_COLOR = "#a9b3bd"
_MEASURES = {"multi_seed": "mean validation recall", "published": "best validation accuracy"}


def draw_study(inputs: StudyInputs, credit: str, folder: Path) -> dict[str, Path]:
    """Draw every figure into a folder and return their paths by name."""
    figures = {name: folder / f"{name}.png" for name in (*ROUNDS, "curves", "costs", "test")}
    for name in ROUNDS:
        comparison_figure(inputs, name, credit, figures[name])
    curves_figure(inputs, credit, figures["curves"])
    costs_figure(inputs, credit, figures["costs"])
    test_figure(inputs, credit, figures["test"])
    if "published_rates" in inputs.tables:
        figures["published"] = folder / "published.png"
        published_figure(inputs, figures["published"])
    return figures


def displayed_arms(inputs: StudyInputs, name: str) -> pd.DataFrame:
    """Return a round's arms at their last rung, each optimizer at its best rate; best first."""
    arms = inputs.tables["arms"]
    rows = arms[(arms["round"] == name) & arms["last"] & (arms["best_rate"] | arms["chosen"])]
    rows = rows[rows["mean"].notna()]
    order = ["until", "seeds", "mean"]  # arms that got further come first
    return rows.sort_values(order, ascending=False, kind="stable").reset_index(drop=True)


def comparison_figure(inputs: StudyInputs, name: str, credit: str, path: Path) -> None:
    """Draw a round: each arm's score with its interval, its seeds, and the published value."""
    rows = displayed_arms(inputs, name)
    if rows.empty:
        empty_figure(path, "No arm of this round has a score.", credit)
        return
    figure = Figure(figsize=(WIDTH_INCHES, 1.9 + 0.46 * len(rows)))
    axis = figure.subplots()
    published = _published_rates(inputs, name)
    has_published = False
    for height, row in _by_height(rows):
        _arm_mark(axis, height, row, inputs)
        _right_of(axis, height, _arm_note(row, inputs))
        rate = published.get(_our_name(row))
        if rate is not None:
            _published_mark(axis, height - 0.26, rate)
            has_published = True
    _threshold(axis, inputs, name)
    _row_axes(axis, rows["arm"], (-len(rows) + 0.35, 0.65))
    handles = _handles(rows, inputs, has_published)
    save(figure, path, _title(inputs, name), credit, handles)


def curves_figure(inputs: StudyInputs, credit: str, path: Path) -> None:
    """Draw validation recall by epoch: one panel per round, one line per arm (mean of seeds)."""
    max_lines = max(int(displayed_arms(inputs, name)["whole"].sum()) for name in ROUNDS)
    figure = Figure(figsize=(WIDTH_INCHES, 5.0 + 0.09 * max_lines))
    axes = figure.subplots(1, len(ROUNDS), sharey=True)
    for axis, name in zip(axes, ROUNDS, strict=True):
        _curves_panel(axis, inputs, name)
    measure = "accuracy" if inputs.published else "mean recall"
    axes[0].set_ylabel(f"validation {measure} in %", fontsize=10, color=INK)
    title = f"Validation {measure} by epoch: one line per arm, thin lines are its seeds"
    if not inputs.tables["arms"]["whole"].all():
        title += ";\ngray lines end where halving stopped an arm"
    save(figure, path, title, credit)


def costs_figure(inputs: StudyInputs, credit: str, path: Path) -> None:
    """Draw each backbone's cost, and the trained epochs beside those of the full grid."""
    rows = inputs.tables["arms"]
    rows = rows[(rows["round"] == ROUNDS[0]) & rows["last"] & rows["mean"].notna()]
    rows = rows.sort_values("parameters", kind="stable").reset_index(drop=True)
    figure = Figure(figsize=(WIDTH_INCHES, 1.9 + 0.42 * max(len(rows), 3)))
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    heights = -np.arange(len(rows), dtype=float)
    left.barh(heights, rows["seconds_an_epoch"], color=OURS_COLOR, height=0.55)
    for height, row in zip(heights, rows.itertuples(), strict=True):
        pace = f"{row.seconds_an_epoch:.2g} s · {row.images_per_second:,.0f} pictures/s"
        text = f" {pace} · {millions(row.parameters)} parameters"
        left.annotate(text, (row.seconds_an_epoch, height), va="center", fontsize=9, color=INK)
    left.set_xlim(0, 2.3 * float(rows["seconds_an_epoch"].max()))
    left.set_yticks(heights, rows["arm"])
    left.set_title("seconds per epoch", loc="left", fontsize=11, color=INK)
    quiet_axes(left)
    _epochs_panel(right, inputs)
    save(figure, path, "Cost of a run on this machine, and of the study", credit)


def test_figure(inputs: StudyInputs, credit: str, path: Path) -> None:
    """Draw the winner's mean recall on the test split, of everyone and by group."""
    rows = inputs.test[inputs.test["measure"] == "mean_recall"].reset_index(drop=True)
    figure = Figure(figsize=(WIDTH_INCHES, 1.6 + 0.42 * len(rows)))
    axis = figure.subplots()
    for height, row in _by_height(rows):
        color = CHOSEN_COLOR if row["dimension"] == ALL else OURS_COLOR
        _interval_bar(axis, height, row["ci_low"], row["ci_high"], color, 2.2)
        axis.plot(row["value"], height, "o", color=color, markersize=8)
        n = f"n = {count(row['images'])}, {count(row['people'])} people"
        _right_of(axis, height, f"{percent(row['value'])}   {n}")
    names = rows["group"].where(rows["dimension"] != ALL, "all test pictures")
    _row_axes(axis, names, (-len(rows) + 0.4, 0.6))
    level = f"{100 * rows['confidence'].iloc[0]:g} % intervals"
    title = f"The winner on the test split: mean recall over emotions ({level})"
    save(figure, path, title, credit)


def published_figure(inputs: StudyInputs, path: Path) -> None:
    """Draw the published values with intervals, and which cannot be told from the highest."""
    rates, pairs = inputs.tables["published_rates"], inputs.tables["published_pairs"]
    rounds = [name for name in ROUNDS if (rates["round"] == name).any()]
    max_rows = int(rates["round"].value_counts().max())
    figure = Figure(figsize=(WIDTH_INCHES, 1.9 + 0.42 * max_rows))
    axes = figure.subplots(1, len(rounds), squeeze=False)[0]
    for axis, name in zip(axes, rounds, strict=True):
        rows = rates[rates["round"] == name].sort_values("accuracy", ascending=False)
        lower = significantly_lower(pairs, name, str(rows["name"].iloc[0]))
        for height, row in _by_height(rows):
            color = FAINT if row["name"] in lower else CHOSEN_COLOR
            _interval_bar(axis, height, row["ci_low"], row["ci_high"], color, 2.2)
            axis.plot(row["accuracy"], height, "D", color=color, markersize=7)
        _row_axes(axis, rows["name"], (-max_rows + 0.4, 0.6))
        axis.set_title(name, loc="left", fontsize=11, fontweight="bold", color=INK)
        axis.set_xlim(0.15, 0.9)
    n, level = int(rates["validation_n"].iloc[0]), 100 * rates["confidence"].iloc[0]
    title = f"Published validation accuracies with {level:g} % intervals, n = {n} by our estimate"
    handles = [
        mark(CHOSEN_COLOR, "the highest, and what cannot be told from it", "D"),
        mark(FAINT, "shown to be lower (Holm)", "D"),
    ]
    save(figure, path, title, "", handles)


def significantly_lower(pairs: pd.DataFrame, name: str, highest: str) -> set[str]:
    """Return the names whose published value is significantly below the round's highest."""
    rows = pairs[(pairs["round"] == name) & (pairs["higher"] == highest)]
    return set(rows["lower"][rows["p_adjusted"] < 0.05])


def millions(number: float) -> str:
    """Format a number of parameters."""
    return f"{number / 1e6:.3g} M" if number >= 1e5 else count(number)


def _arm_mark(axis: Axes, height: float, row: pd.Series, inputs: StudyInputs) -> None:
    """Draw an arm's interval and mean; the mark is hollow if halving stopped it."""
    color = CHOSEN_COLOR if row["chosen"] else OURS_COLOR if row["whole"] else FAINT
    _interval_bar(axis, height, row["ci_low"], row["ci_high"], color, 2.4 if row["whole"] else 1.4)
    seeds = inputs.tables["seeds"]
    of_arm = seeds[["round", "arm", "until"]] == row[["round", "arm", "until"]]
    scores = seeds["score"][of_arm.all(axis=1)]
    if len(scores) > 1:
        axis.plot(
            scores, np.full(len(scores), height + 0.2), "o", color=color, markersize=3.5, alpha=0.8
        )
    face = color if row["whole"] else "white"
    axis.plot(row["mean"], height, "o", color=color, markersize=8.5, markerfacecolor=face, zorder=4)


def _published_mark(axis: Axes, height: float, row: pd.Series) -> None:
    _interval_bar(axis, height, row["ci_low"], row["ci_high"], PUBLISHED_COLOR, 1.0)
    axis.plot(row["accuracy"], height, "D", color=PUBLISHED_COLOR, markersize=5)


def _interval_bar(
    axis: Axes, height: float, low: float, high: float, color: str, width: float
) -> None:
    if low == low and high == high:
        axis.plot([low, high], [height, height], color=color, linewidth=width, zorder=3)


def _threshold(axis: Axes, inputs: StudyInputs, name: str) -> None:
    """Draw the lowest mean within one standard error of the best."""
    if inputs.published:
        return
    row = inputs.choices.set_index("round").loc[name]
    axis.axvline(row["threshold"], color=CHOSEN_COLOR, linewidth=1, linestyle=(0, (4, 3)), zorder=1)


def _by_height(rows: pd.DataFrame) -> Iterator[tuple[float, pd.Series]]:
    """Yield each row with its height in the figure, from 0 downwards."""
    for position, (_, row) in enumerate(rows.iterrows()):
        yield -float(position), row


def _row_axes(axis: Axes, names: pd.Series, limits: tuple[float, float]) -> None:
    """Label the rows and format the axis of a figure of percentages."""
    axis.set_yticks(-np.arange(len(names)), names)
    axis.set_ylim(*limits)
    quiet_axes(axis)
    axis.xaxis.set_major_formatter(lambda value, _: f"{round(100 * value, 1):g} %")


def _arm_note(row: pd.Series, inputs: StudyInputs) -> str:
    seeds = f"{int(row['seeds'])} seed{'s' if row['seeds'] > 1 else ''}"
    epochs = f"{int(row['until'])} epochs"
    if not row["whole"]:
        epochs = f"stopped after {int(row['until'])} of {inputs.settings['epochs']} epochs"
    size = f", {millions(row['parameters'])}" if row["round"] == ROUNDS[0] else ""
    return f"{percent(row['mean'])}   {seeds}, {epochs}{size}"


def _right_of(axis: Axes, height: float, text: str) -> None:
    axis.annotate(
        text,
        (1.012, height),
        xycoords=("axes fraction", "data"),
        va="center",
        fontsize=9.5,
        color=INK,
        annotation_clip=False,
    )


def _title(inputs: StudyInputs, name: str) -> str:
    level = 100 * float(inputs.tables["arms"]["confidence"].iloc[0])
    measure = _MEASURES[inputs.settings["protocol"]]
    return f"{capital(name)}: {measure} with {level:g} % intervals"


def _handles(rows: pd.DataFrame, inputs: StudyInputs, has_published: bool) -> list[Line2D]:
    handles = [mark(CHOSEN_COLOR, "chosen")]
    if (rows["whole"] & ~rows["chosen"]).any():
        handles.append(mark(OURS_COLOR, "trained to the end"))
    if not rows["whole"].all():
        stopped = mark(FAINT, "stopped early")
        stopped.set_markerfacecolor("white")
        handles.append(stopped)
    if has_published:
        handles.append(mark(PUBLISHED_COLOR, "published (other pictures)", "D"))
    if not inputs.published:
        dashes = (0, (4, 3))
        label = "one standard error below the best"
        handles.append(
            Line2D([], [], color=CHOSEN_COLOR, linewidth=1, linestyle=dashes, label=label)
        )
    return handles


def _published_rates(inputs: StudyInputs, name: str) -> dict[str, pd.Series]:
    rates = inputs.tables.get("published_rates")
    if rates is None:
        return {}
    return {str(row["ours"]): row for _, row in rates[rates["round"] == name].iterrows()}


def _our_name(row: pd.Series) -> str:
    return str(row["optimizer"] if row["round"] == ROUNDS[2] else row["arm"])


def _curves_panel(axis: Axes, inputs: StudyInputs, name: str) -> None:
    """Draw a round's lines; arms that were trained to the end are colored and named."""
    measure = "valid_accuracy_score" if inputs.published else "valid_recall_score"
    curves = inputs.tables["curves"]
    arms = displayed_arms(inputs, name)
    handles = []
    for position, row in arms[::-1].iterrows():  # the best on top
        of_arm = curves[(curves["round"] == name) & (curves["arm"] == row["arm"])]
        color, dashes = _line_style(arms, int(str(position)))
        for _, of_seed in of_arm.groupby("seed"):
            axis.plot(of_seed["epoch"], of_seed[measure], color=color, linewidth=0.7, alpha=0.45)
        mean = of_arm.groupby("epoch")[measure].mean()
        line = Line2D([], [], color=color, linewidth=2, linestyle=dashes, label=row["arm"])
        axis.plot(mean.index, mean, color=color, linewidth=2, linestyle=dashes)
        if color != _STOPPED_COLOR:
            handles.append(line)
    if not arms["whole"].all():
        handles.insert(0, Line2D([], [], color=_STOPPED_COLOR, linewidth=2, label="stopped early"))
    axis.set_title(name, loc="left", fontsize=11, fontweight="bold", color=INK)
    axis.set_xlabel("epoch", fontsize=9.5, color=FAINT)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_xlim(0.5, inputs.settings["epochs"] + 0.5)
    quiet_axes(axis, "y")
    axis.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}")
    axis.legend(
        handles=handles[::-1],
        frameon=False,
        fontsize=8.5,
        ncols=2,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.17),
    )


def _line_style(arms: pd.DataFrame, position: int) -> tuple[str, str]:
    """Return an arm's color and dashes: fixed if chosen, gray if stopped."""
    if arms["chosen"].iloc[position]:
        return CHOSEN_COLOR, "-"
    if not arms["whole"].iloc[position]:
        return _STOPPED_COLOR, "-"
    others = [color for color in COLORS if color != CHOSEN_COLOR]
    rank = list(arms.index[arms["whole"] & ~arms["chosen"]]).index(position)
    return others[rank % len(others)], ("-", "--", ":")[min(rank // len(others), 2)]


def _epochs_panel(axis: Axes, inputs: StudyInputs) -> None:
    """Draw each round's epochs, beside those that it takes without halving."""
    rows = inputs.choices
    heights = -np.arange(len(rows), dtype=float)
    axis.barh(heights, rows["epochs_of_grid"], color=GRID, height=0.62)
    axis.barh(heights, rows["epochs"], color=OURS_COLOR, height=0.4)
    for height, row in zip(heights, rows.itertuples(), strict=True):
        text = f" {row.epochs} of {row.epochs_of_grid} epochs"
        axis.annotate(text, (row.epochs_of_grid, height), va="center", fontsize=9, color=INK)
    axis.set_yticks(heights, rows["round"])
    axis.set_ylim(-len(rows) + 0.3, 0.7)
    axis.set_xlim(0, 1.45 * float(rows["epochs_of_grid"].max()))
    axis.set_title(_epochs_title(inputs), loc="left", fontsize=11, color=INK)
    quiet_axes(axis)


def _epochs_title(inputs: StudyInputs) -> str:
    done, grid = inputs.summary["epochs"], inputs.summary["epochs_of_grid"]
    return f"epochs trained (all: {done} of {grid}, {100 * done / grid:.0f} %)"
