"""The audit's figures: recall with intervals, the change by group, and what was read as what.

Every figure says how many images stand behind each mark and which intervals it shows, and carries
the data sets' credits.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tasks.core.gap_sentences import points
from tasks.core.labels import ALL
from tasks.core.paths import MODELS
from tasks.core.plotting.style import (
    COLORS,
    FAINT,
    GRID,
    INK,
    WIDTH_INCHES,
    mark,
    quiet_axes,
    save,
)

_WORDS = {"base": "base model", "finetuned": "fine-tuned model"}
PANELS_AT_MOST = 40  # groups up to which every emotion has a panel
_CROSSED_AT_MOST = 8  # cells of the first two dimensions that a figure still shows one by one
_CROSSED_AT_LEAST = 5  # images of each such cell


def model_word(name: str) -> str:
    """Return a model's name for a figure; those of another system stay as they are."""
    return _WORDS.get(name, name)


def model_marks(models: Sequence[str]) -> list[Line2D]:
    """Return the legend's handles, in the order of the colors."""
    return [mark(COLORS[i % len(COLORS)], model_word(name)) for i, name in enumerate(models)]


@dataclass(frozen=True)
class Row:
    """A group of a figure: its label, its block (dimension) and the values that select it."""

    label: str
    block: int
    where: tuple[tuple[str, str], ...]


def group_rows(table: pd.DataFrame, by: Sequence[str]) -> list[Row]:
    """Return the groups that a figure shows, top to bottom.

    All images, the groups of each dimension, and the cells of the first two dimensions where
    there are few enough of them and each has enough images to say anything.

    Parameters
    ----------
    table
        `groups` or `before_after`: one row per cell of the cube.
    by
        The dimensions.
    """
    rows = [Row("all", 0, ())]
    values = {name: [v for v in dict.fromkeys(table[name]) if v != ALL] for name in by}
    for block, name in enumerate(by, start=1):
        rows += [Row(_word(name, value), block, ((name, value),)) for value in values[name]]
    if len(by) >= 2:
        first, second = by[:2]
        pairs = list(product(values[first], values[second]))
        crossed = [
            Row(f"{one}, {two}".replace("_", " "), len(by) + 1, ((first, one), (second, two)))
            for one, two in pairs
        ]
        sizes = [select(table, row, by, ALL)["n"] for row in crossed]
        present = [row for row, n in zip(crossed, sizes, strict=True) if len(n)]
        enough = all(n.min() >= _CROSSED_AT_LEAST for n in sizes if len(n))
        rows += present if enough and len(present) <= _CROSSED_AT_MOST else []
    return [row for row in rows if len(select(table, row, by, ALL))]


def select(table: pd.DataFrame, row: Row, by: Sequence[str], emotion: str) -> pd.DataFrame:
    """Return the cell of a group and emotion, over all data sets: one row per model, or none."""
    wanted = dict(row.where)
    keep = (table["dataset"] == ALL) & (table["emotion"] == emotion)
    for name in by:
        keep &= table[name] == wanted.get(name, ALL)
    return table[keep]


def drawn_rows(table: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Return the rows that a figure can show: of many columns, a small part of all crossings."""
    pooled = pd.DataFrame({name: table[name] == ALL for name in by}, index=table.index)
    single = (~pooled).sum(axis=1) <= 1
    of_first_two = pooled[list(by[2:])].all(axis=1)
    return table[(table["dataset"] == ALL) & (single | of_first_two)]


def recall_figure(
    table: pd.DataFrame, by: Sequence[str], title: str, credit: str, path: Path
) -> None:
    """Draw recall by group, a panel an emotion, a mark with its interval a model.

    Parameters
    ----------
    table
        Long: `model, dataset, <by>, emotion, n, recall, ci_low, ci_high`, one protocol.
    by
        The dimensions.
    title
        What is shown.
    credit
        Notices and credits of the data sets.
    path
        The PNG.
    """
    table = drawn_rows(table, by)
    rows = group_rows(table, by)
    models = list(dict.fromkeys(table["model"]))
    emotions = [name for name in dict.fromkeys(table["emotion"])]
    if len(rows) > PANELS_AT_MOST:  # one panel is legible where eight are not
        emotions = emotions[:1]
    columns = min(4, len(emotions))
    lines = -(-len(emotions) // columns)
    heights = _heights(rows)
    figure = Figure(figsize=(WIDTH_INCHES, 1.5 + lines * (0.9 + 0.27 * (heights[-1] + 1))))
    axes = figure.subplots(lines, columns, sharey=True, squeeze=False)
    for index, axis in enumerate(axes.flat):
        if index >= len(emotions):
            axis.set_visible(False)
            continue
        _recall_panel(axis, table, rows, heights, by, emotions[index], models)
        name = "all emotions" if emotions[index] == ALL else emotions[index]
        axis.set_title(name, fontsize=11, loc="left", color=INK, fontweight="bold")
    save(figure, path, title, credit, model_marks(models))


def change_figure(
    table: pd.DataFrame, by: Sequence[str], pair: tuple[str, str], credit: str, path: Path
) -> None:
    """Draw what changed for each group from one model to the other: both recalls, and the change.

    Parameters
    ----------
    table
        `before_after`, not empty.
    by
        The dimensions.
    pair
        The models that were compared.
    credit
        Notices and credits of the data sets.
    path
        The PNG.
    """
    table = drawn_rows(table, by)
    rows = group_rows(table, by)
    heights = _heights(rows)
    figure = Figure(figsize=(WIDTH_INCHES, 2.1 + 0.34 * (heights[-1] + 1)))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1, 1))
    for row, height in zip(rows, heights, strict=True):
        cell = select(table, row, by, ALL).iloc[0]
        _dumbbell(left, cell, height)
        _change(right, cell, height)
    _share_axis(left, rows, heights, [int(select(table, r, by, ALL)["n"].iloc[0]) for r in rows])
    left.set_xlabel("recall, %", color=FAINT)
    left.set_title("recall of both models", fontsize=11, loc="left", fontweight="bold")
    right.axvline(0, color=INK, linewidth=0.8)
    right.set_xlabel("change in recall, percentage points", color=FAINT)
    right.set_title("change", fontsize=11, loc="left", fontweight="bold")
    quiet_axes(right)
    _room_for_counts(right)
    level = 100 * table["confidence"].iloc[0]
    bars = f"bars: {level:g} % intervals of the change, picture by picture, clustered by subject"
    if table["ci_low"].isna().all():
        bars = "no intervals, since too few subjects are known"
    title = f"{change_words(pair)}, {shared_words(table)}\n({bars})"
    save(figure, path, title, credit, model_marks(pair))


def change_words(pair: tuple[str, str]) -> str:
    """Return what a comparison of two models shows."""
    if pair == MODELS:
        return "What fine-tuning changed"
    return f"What changes from {model_word(pair[0])} to {model_word(pair[1])}"


def shared_words(table: pd.DataFrame) -> str:
    """Return which images `before_after` compares the models on."""
    if (table["protocol"] == ALL).all():
        return "on every picture (which of them the models were trained on is not known)"
    return "on pictures held out from both models"


def confusion_figure(
    table: pd.DataFrame, dimension: str, title: str, credit: str, path: Path
) -> None:
    """Draw what each emotion was read as: a matrix per model (rows) and group (columns).

    Parameters
    ----------
    table
        `confusion`, one protocol.
    dimension
        Whose groups are shown, `all` for none.
    title
        Which images these are.
    credit
        Notices and credits of the data sets.
    path
        The PNG.
    """
    part = table[table["dimension"] == dimension]
    models, groups = list(dict.fromkeys(part["model"])), list(dict.fromkeys(part["group"]))
    columns = min(3, len(groups))
    pages = -(-len(groups) // columns)
    size = max(part["y_pred"].nunique(), 4)
    height = 0.42 * part["emotion"].nunique() + 1.25
    scale = 3 / columns if columns < 3 else 1
    lines = len(models) * pages
    figure = Figure(figsize=(WIDTH_INCHES, 1.2 + lines * height * min(scale, 1.5)))
    axes = figure.subplots(lines, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_visible(False)
    for (line, model), (index, group) in product(enumerate(models), enumerate(groups)):
        cells = part[(part["model"] == model) & (part["group"] == group)]
        axis = axes[line * pages + index // columns, index % columns]
        if len(cells):
            axis.set_visible(True)
            _matrix(axis, cells, size)
            name = "" if dimension == ALL else f"{_word(dimension, group)}, "
            axis.set_title(f"{name}{model_word(model)}", fontsize=11, loc="left", fontweight="bold")
    words = "What each emotion was read as, % of the pictures of that emotion (n in brackets)"
    save(figure, path, f"{words},\n{title}", credit, [])


def long_recalls(before_after: pd.DataFrame, pair: tuple[str, str]) -> pd.DataFrame:
    """Turn `before_after` into one row per cell and model, as `recall_figure` takes it."""
    parts = []
    for model, name in zip(pair, ("base", "finetuned"), strict=True):
        part = before_after.drop(columns=["ci_low", "ci_high"]).rename(
            columns={
                f"recall_{name}": "recall",
                f"{name}_ci_low": "ci_low",
                f"{name}_ci_high": "ci_high",
            }
        )
        parts.append(part.assign(model=model))
    return pd.concat(parts, ignore_index=True)


def _word(dimension: str, value: str) -> str:
    """Name a group; only values that do not speak for themselves need their dimension."""
    plain = dimension in ("age_band", "gender", ALL) and value != "unknown"
    return value if plain else f"{dimension} {value}".replace("_", " ")


def _heights(rows: Sequence[Row]) -> np.ndarray:
    """Place rows from the top down (0, 1, …), with a gap between blocks."""
    blocks = np.array([row.block for row in rows])
    starts = np.concatenate([[0], np.cumsum(np.diff(blocks) > 0)])
    return np.arange(len(rows)) + 0.6 * starts


def _recall_panel(
    axis: Axes,
    table: pd.DataFrame,
    rows: Sequence[Row],
    heights: np.ndarray,
    by: Sequence[str],
    emotion: str,
    models: Sequence[str],
) -> None:
    shift = 0.3 / max(len(models) - 1, 1)
    for row, height in zip(rows, heights, strict=True):
        cell = select(table, row, by, emotion)
        for index, model in enumerate(models):
            one = cell[cell["model"] == model]
            if one.empty:
                continue
            figures = one.iloc[0]
            at = height + shift * (index - (len(models) - 1) / 2)
            _interval(axis, figures, ("recall", "ci_low", "ci_high"), at, COLORS[index])
        if len(cell):
            counts = list(dict.fromkeys(cell["n"]))
            text = " / ".join(str(count) for count in counts)
            axis.text(104, height, text, va="center", fontsize=8.5, color=FAINT, clip_on=False)
    axis.text(104, heights[0] - 0.95, "n", fontsize=8.5, color=FAINT, style="italic")
    _share_axis(axis, rows, heights, None)


def _share_axis(
    axis: Axes, rows: Sequence[Row], heights: np.ndarray, counts: Sequence[int] | None
) -> None:
    axis.set_xlim(0, 100)
    axis.set_ylim(heights[-1] + 0.6, -0.6)
    labels = [row.label for row in rows]
    if counts is not None:
        labels = [f"{label}  (n = {n})" for label, n in zip(labels, counts, strict=True)]
    axis.set_yticks(heights, labels)
    axis.set_xticks([0, 25, 50, 75, 100])
    quiet_axes(axis)


def _interval(
    axis: Axes, figures: pd.Series, names: tuple[str, str, str], height: float, color: str
) -> None:
    middle, low, high = (100 * float(figures[name]) for name in names)
    axis.plot([low, high], [height, height], color=color, linewidth=1.6, solid_capstyle="butt")
    axis.plot([middle], [height], "o", color=color, markersize=4.8, clip_on=False, zorder=3)


def _dumbbell(axis: Axes, cell: pd.Series, height: float) -> None:
    ends = [100 * cell["recall_base"], 100 * cell["recall_finetuned"]]
    axis.plot(ends, [height, height], color="#b3bcc6", linewidth=3, zorder=1)
    for end, color in zip(ends, COLORS, strict=False):
        axis.plot([end], [height], "o", color=color, markersize=7.5, zorder=2, clip_on=False)


def _change(axis: Axes, cell: pd.Series, height: float) -> None:
    _interval(axis, cell, ("change", "ci_low", "ci_high"), height, INK)
    change = points(cell["change"], signed=True)
    axis.annotate(
        f"{change}   {int(cell['gained'])} gained, {int(cell['lost'])} lost",
        (1.02, height),
        xycoords=("axes fraction", "data"),
        va="center",
        fontsize=9,
        color=FAINT,
        annotation_clip=False,
    )


def _room_for_counts(axis: Axes) -> None:
    low, high = axis.get_xlim()
    axis.set_xlim(min(low, -2), max(high, 2))


def _matrix(axis: Axes, cells: pd.DataFrame, size: int) -> None:
    shares = cells.pivot(index="emotion", columns="y_pred", values="share")
    order = list(dict.fromkeys(cells["emotion"])), list(dict.fromkeys(cells["y_pred"]))
    shares = shares.reindex(index=order[0], columns=order[1])
    axis.imshow(shares.to_numpy(), vmin=0, vmax=1, cmap="Blues", aspect="auto")
    small = 9 if size <= 7 else 8
    for (line, column), share in np.ndenumerate(shares.to_numpy()):
        if share > 0:
            axis.text(
                column,
                line,
                f"{100 * share:.0f}",
                ha="center",
                va="center",
                fontsize=small,
                color="white" if share > 0.55 else INK,
            )
    counts = cells.drop_duplicates("emotion").set_index("emotion")["n_emotion"]
    axis.set_yticks(range(len(order[0])), [f"{name} ({counts[name]})" for name in order[0]])
    axis.set_xticks(range(len(order[1])), order[1], rotation=40, ha="right")
    axis.tick_params(length=0, labelsize=small, labelcolor=INK)
    for side in axis.spines.values():
        side.set_color(GRID)
    axis.set_ylabel("label of the picture", fontsize=9, color=FAINT)
    axis.set_xlabel("read as", fontsize=9, color=FAINT)


def protocols_shown(table: pd.DataFrame) -> Iterator[str]:
    """Yield the protocols that a table has rows of, `held_out` first."""
    yield from (name for name in ("held_out", ALL) if (table["protocol"] == name).any())
