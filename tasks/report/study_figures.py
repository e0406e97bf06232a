"""The figures of a study's page: one comparison a round, curves, cost, published order, test."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tasks.core.figure_style import (
    COLOURS,
    FAINT,
    GRID,
    INK,
    WIDTH_INCHES,
    empty_figure,
    mark,
    quiet_axes,
    save,
)
from tasks.core.headline import percent
from tasks.core.labels import ALL
from tasks.report.study_inputs import StudyInputs
from tasks.report.words import capital, count

OURS, CHOSEN, THEIRS = COLOURS[0], COLOURS[1], COLOURS[3]
ROUNDS = ("backbones", "losses", "optimisers")
_STOPPED = "#a9b3bd"
_HIGHEST = {"better": "mean validation recall", "published": "best validation accuracy"}


def draw_study(inputs: StudyInputs, credit: str, folder: Path) -> dict[str, Path]:
    """Draw every figure into a folder and return their paths by name."""
    drawn = {name: folder / f"{name}.png" for name in (*ROUNDS, "curves", "costs", "test")}
    for name in ROUNDS:
        comparison_figure(inputs, name, credit, drawn[name])
    curves_figure(inputs, credit, drawn["curves"])
    costs_figure(inputs, credit, drawn["costs"])
    test_figure(inputs, credit, drawn["test"])
    if "published_rates" in inputs.tables:
        drawn["published"] = folder / "published.png"
        published_figure(inputs, drawn["published"])
    return drawn


def shown_arms(inputs: StudyInputs, name: str) -> pd.DataFrame:
    """Return a round's arms at their last rung, an optimiser at its best rate; the best first."""
    arms = inputs.tables["arms"]
    rows = arms[(arms["round"] == name) & arms["last"] & (arms["best_rate"] | arms["chosen"])]
    rows = rows[rows["mean"].notna()]
    order = ["until", "seeds", "mean"]  # who got further stands above
    return rows.sort_values(order, ascending=False, kind="stable").reset_index(drop=True)


def comparison_figure(inputs: StudyInputs, name: str, credit: str, path: Path) -> None:
    """Draw a round: each arm's score with its interval, its seeds, and the published figure."""
    rows = shown_arms(inputs, name)
    if rows.empty:
        empty_figure(path, "No arm of this round has a score.", credit)
        return
    height = 1.9 + 0.46 * len(rows)
    figure = Figure(figsize=(WIDTH_INCHES, height))
    axis = figure.subplots()
    printed = _printed(inputs, name)
    for place, row in rows.iterrows():
        _arm(axis, -float(str(place)), row, inputs)
        theirs = printed.get(_our_name(row))
        if theirs is not None:
            _theirs(axis, -float(str(place)) - 0.26, theirs)
    _threshold(axis, inputs, name)
    axis.set_yticks([-float(place) for place in range(len(rows))], rows["arm"])
    axis.set_ylim(-len(rows) + 0.35, 0.65)
    quiet_axes(axis)
    _per_cent(axis)
    _beside(axis, rows, inputs)
    handles = _handles(
        rows, inputs, bool({_our_name(r) for _, r in rows.iterrows()} & set(printed))
    )
    save(figure, path, _title(inputs, name), credit, handles)


def curves_figure(inputs: StudyInputs, credit: str, path: Path) -> None:
    """Draw validation recall by epoch, a panel a round, a line an arm (mean of its seeds)."""
    most = max(int(shown_arms(inputs, name)["whole"].sum()) for name in ROUNDS)
    figure = Figure(figsize=(WIDTH_INCHES, 5.0 + 0.09 * most))
    axes = figure.subplots(1, len(ROUNDS), sharey=True)
    for axis, name in zip(axes, ROUNDS, strict=True):
        _curves(axis, inputs, name)
    measure = "accuracy" if inputs.published else "mean recall"
    axes[0].set_ylabel(f"validation {measure} in %", fontsize=10, color=INK)
    title = f"Validation {measure} by epoch: a line an arm, thin lines its seeds"
    if not inputs.tables["arms"]["whole"].all():
        title += ";\ngrey lines end where halving stopped an arm"
    save(figure, path, title, credit)


def costs_figure(inputs: StudyInputs, credit: str, path: Path) -> None:
    """Draw what a backbone costs, and how many epochs were trained of those of the full grid."""
    rows = inputs.tables["arms"]
    rows = rows[(rows["round"] == ROUNDS[0]) & rows["last"] & rows["mean"].notna()]
    rows = rows.sort_values("parameters", kind="stable").reset_index(drop=True)
    figure = Figure(figsize=(WIDTH_INCHES, 1.9 + 0.42 * max(len(rows), 3)))
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    places = -np.arange(len(rows), dtype=float)
    left.barh(places, rows["seconds_an_epoch"], color=OURS, height=0.55)
    for place, row in zip(places, rows.itertuples(), strict=True):
        pace = f"{row.seconds_an_epoch:.2g} s · {row.pictures_per_second:,.0f} pictures/s"
        text = f" {pace} · {millions(row.parameters)} parameters"
        left.annotate(text, (row.seconds_an_epoch, place), va="center", fontsize=9, color=INK)
    left.set_xlim(0, 2.3 * float(rows["seconds_an_epoch"].max()))
    left.set_yticks(places, rows["arm"])
    left.set_title("seconds an epoch", loc="left", fontsize=11, color=INK)
    quiet_axes(left)
    _epochs(right, inputs)
    save(figure, path, "What a run costs on this machine, and what the study cost", credit)


def test_figure(inputs: StudyInputs, credit: str, path: Path) -> None:
    """Draw the winner's mean recall on the test split, of everyone and by group."""
    rows = inputs.test[inputs.test["measure"] == "mean_recall"].reset_index(drop=True)
    figure = Figure(figsize=(WIDTH_INCHES, 1.6 + 0.42 * len(rows)))
    axis = figure.subplots()
    for place, row in rows.iterrows():
        height, colour = -float(str(place)), CHOSEN if row["dimension"] == ALL else OURS
        _bar(axis, height, row["ci_low"], row["ci_high"], colour, 2.2)
        axis.plot(row["value"], height, "o", color=colour, markersize=8)
    names = [
        "all test pictures" if r["dimension"] == ALL else r["group"] for _, r in rows.iterrows()
    ]
    axis.set_yticks([-float(place) for place in range(len(rows))], names)
    axis.set_ylim(-len(rows) + 0.4, 0.6)
    for place, row in rows.iterrows():
        text = (
            f"{percent(row['value'])}   n = {count(row['pictures'])}, {count(row['people'])} people"
        )
        _right_of(axis, -float(str(place)), text)
    quiet_axes(axis)
    _per_cent(axis)
    level = f"{100 * rows['confidence'].iloc[0]:g} % intervals"
    title = f"The winner on the test split: mean recall over emotions ({level})"
    save(figure, path, title, credit)


def published_figure(inputs: StudyInputs, path: Path) -> None:
    """Draw the published figures with intervals, and which cannot be told from the highest."""
    rates, pairs = inputs.tables["published_rates"], inputs.tables["published_pairs"]
    rounds = [name for name in ROUNDS if (rates["round"] == name).any()]
    most = int(rates["round"].value_counts().max())
    figure = Figure(figsize=(WIDTH_INCHES, 1.9 + 0.42 * most))
    axes = figure.subplots(1, len(rounds), squeeze=False)[0]
    for axis, name in zip(axes, rounds, strict=True):
        rows = rates[rates["round"] == name].sort_values("accuracy", ascending=False)
        lower = shown_lower(pairs, name, str(rows["name"].iloc[0]))
        for place, row in enumerate(rows.itertuples()):
            colour = FAINT if row.name in lower else CHOSEN
            _bar(axis, -place, row.ci_low, row.ci_high, colour, 2.2)
            axis.plot(row.accuracy, -place, "D", color=colour, markersize=7)
        axis.set_yticks(-np.arange(len(rows)), rows["name"])
        axis.set_ylim(-most + 0.4, 0.6)
        axis.set_title(name, loc="left", fontsize=11, fontweight="bold", color=INK)
        quiet_axes(axis)
        _per_cent(axis)
        axis.set_xlim(0.15, 0.9)
    n, level = int(rates["validation_n"].iloc[0]), 100 * rates["confidence"].iloc[0]
    title = f"Published validation accuracies with {level:g} % intervals, n = {n} by our reckoning"
    handles = [
        mark(CHOSEN, "the highest, and what cannot be told from it", "D"),
        mark(FAINT, "shown to be lower (Holm)", "D"),
    ]
    save(figure, path, title, "", handles)


def shown_lower(pairs: pd.DataFrame, name: str, highest: str) -> set[str]:
    """Return the names of a round whose published figure is shown to lie below the highest."""
    rows = pairs[(pairs["round"] == name) & (pairs["higher"] == highest)]
    return set(rows["lower"][rows["p_adjusted"] < 0.05])


def millions(number: float) -> str:
    """Write a number of parameters."""
    return f"{number / 1e6:.3g} M" if number >= 1e5 else count(number)


def _arm(axis: Axes, height: float, row: pd.Series, inputs: StudyInputs) -> None:
    """Draw an arm: bar and mark; hollow where halving stopped it."""
    colour = CHOSEN if row["chosen"] else OURS if row["whole"] else FAINT
    _bar(axis, height, row["ci_low"], row["ci_high"], colour, 2.4 if row["whole"] else 1.4)
    seeds = inputs.tables["seeds"]
    own = seeds[["round", "arm", "until"]] == row[["round", "arm", "until"]]
    dots = seeds["score"][own.all(axis=1)]
    if len(dots) > 1:
        axis.plot(
            dots, np.full(len(dots), height + 0.2), "o", color=colour, markersize=3.5, alpha=0.8
        )
    face = colour if row["whole"] else "white"
    axis.plot(
        row["mean"], height, "o", color=colour, markersize=8.5, markerfacecolor=face, zorder=4
    )


def _theirs(axis: Axes, height: float, row: pd.Series) -> None:
    _bar(axis, height, row["ci_low"], row["ci_high"], THEIRS, 1.0)
    axis.plot(row["accuracy"], height, "D", color=THEIRS, markersize=5)


def _bar(axis: Axes, height: float, low: float, high: float, colour: str, width: float) -> None:
    if low == low and high == high:
        axis.plot([low, high], [height, height], color=colour, linewidth=width, zorder=3)


def _threshold(axis: Axes, inputs: StudyInputs, name: str) -> None:
    """Mark the lowest mean that is within one standard error of the best."""
    if inputs.published:
        return
    row = inputs.choices.set_index("round").loc[name]
    axis.axvline(row["threshold"], color=CHOSEN, linewidth=1, linestyle=(0, (4, 3)), zorder=1)


def _beside(axis: Axes, rows: pd.DataFrame, inputs: StudyInputs) -> None:
    """Write beside each arm its score and how far it was trained."""
    for place, row in rows.iterrows():
        seeds = f"{int(row['seeds'])} seed{'s' if row['seeds'] > 1 else ''}"
        epochs = f"{int(row['until'])} epochs" if row["whole"] else _stopped(row, inputs)
        size = f", {millions(row['parameters'])}" if row["round"] == ROUNDS[0] else ""
        _right_of(axis, -float(str(place)), f"{percent(row['mean'])}   {seeds}, {epochs}{size}")


def _stopped(row: pd.Series, inputs: StudyInputs) -> str:
    return f"stopped after {int(row['until'])} of {inputs.settings['epochs']} epochs"


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


def _per_cent(axis: Axes) -> None:
    axis.xaxis.set_major_formatter(lambda value, _: f"{round(100 * value, 1):g} %")


def _title(inputs: StudyInputs, name: str) -> str:
    level = 100 * float(inputs.tables["arms"]["confidence"].iloc[0])
    measure = _HIGHEST[inputs.settings["protocol"]]
    return f"{capital(name)}: {measure} with {level:g} % intervals"


def _handles(rows: pd.DataFrame, inputs: StudyInputs, theirs: bool) -> list[Line2D]:
    handles = [mark(CHOSEN, "chosen")]
    if (rows["whole"] & ~rows["chosen"]).any():
        handles.append(mark(OURS, "trained to the end"))
    if not rows["whole"].all():
        stopped = mark(FAINT, "stopped early")
        stopped.set_markerfacecolor("white")
        handles.append(stopped)
    if theirs:
        handles.append(mark(THEIRS, "published (other pictures)", "D"))
    if not inputs.published:
        dashed = (0, (4, 3))
        label = "one standard error below the best"
        handles.append(Line2D([], [], color=CHOSEN, linewidth=1, linestyle=dashed, label=label))
    return handles


def _printed(inputs: StudyInputs, name: str) -> dict[str, pd.Series]:
    rates = inputs.tables.get("published_rates")
    if rates is None:
        return {}
    return {str(row["ours"]): row for _, row in rates[rates["round"] == name].iterrows()}


def _our_name(row: pd.Series) -> str:
    return str(row["optimiser"] if row["round"] == ROUNDS[2] else row["arm"])


def _curves(axis: Axes, inputs: StudyInputs, name: str) -> None:
    """Draw a round's lines; those that went to the end in colour and named."""
    measure = "valid_accuracy_score" if inputs.published else "valid_recall_score"
    curves = inputs.tables["curves"]
    arms = shown_arms(inputs, name)
    handles = []
    for place, row in arms[::-1].iterrows():  # the best on top
        own = curves[(curves["round"] == name) & (curves["arm"] == row["arm"])]
        colour, dashes = _line_style(arms, int(str(place)))
        for _, one in own.groupby("seed"):
            axis.plot(one["epoch"], one[measure], color=colour, linewidth=0.7, alpha=0.45)
        mean = own.groupby("epoch")[measure].mean()
        line = Line2D([], [], color=colour, linewidth=2, linestyle=dashes, label=row["arm"])
        axis.plot(mean.index, mean, color=colour, linewidth=2, linestyle=dashes)
        if colour != _STOPPED:
            handles.append(line)
    if not arms["whole"].all():
        handles.insert(0, Line2D([], [], color=_STOPPED, linewidth=2, label="stopped early"))
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


def _line_style(arms: pd.DataFrame, place: int) -> tuple[str, str]:
    """Return the chosen arm's line, others' in order, grey for those that were stopped."""
    if arms["chosen"].iloc[place]:
        return CHOSEN, "-"
    if not arms["whole"].iloc[place]:
        return _STOPPED, "-"
    others = [colour for colour in COLOURS if colour != CHOSEN]
    rank = list(arms.index[arms["whole"] & ~arms["chosen"]]).index(place)
    return others[rank % len(others)], ("-", "--", ":")[min(rank // len(others), 2)]


def _epochs(axis: Axes, inputs: StudyInputs) -> None:
    """Draw the epochs of each round, and those of the same round without halving."""
    rows = inputs.choices
    places = -np.arange(len(rows), dtype=float)
    axis.barh(places, rows["epochs_of_grid"], color=GRID, height=0.62)
    axis.barh(places, rows["epochs"], color=OURS, height=0.4)
    for place, row in zip(places, rows.itertuples(), strict=True):
        text = f" {row.epochs} of {row.epochs_of_grid} epochs"
        axis.annotate(text, (row.epochs_of_grid, place), va="center", fontsize=9, color=INK)
    axis.set_yticks(places, rows["round"])
    axis.set_ylim(-len(rows) + 0.3, 0.7)
    axis.set_xlim(0, 1.45 * float(rows["epochs_of_grid"].max()))
    axis.set_title(_epochs_title(inputs), loc="left", fontsize=11, color=INK)
    quiet_axes(axis)


def _epochs_title(inputs: StudyInputs) -> str:
    done, grid = inputs.whole["epochs"], inputs.whole["epochs_of_grid"]
    return f"epochs trained (all: {done} of {grid}, {100 * done / grid:.0f} %)"
