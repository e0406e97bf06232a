"""The report's own figures: random test pictures with their probabilities, and training curves."""

import hashlib
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.lines import Line2D

from tasks.core.figure_style import (
    COLOURS,
    FAINT,
    GRID,
    INK,
    WIDTH_INCHES,
    empty_figure,
    quiet_axes,
    write_png,
)
from tasks.core.labels import in_order
from tasks.report.words import model_word

_COLUMNS = 5


def choose_pictures(predictions: Mapping[str, pd.DataFrame], number: int, seed: int) -> list[str]:
    """Choose random test pictures that no model was trained on.

    Parameters
    ----------
    predictions
        Each model's predictions.
    number
        How many to choose, at most.
    seed
        Another seed chooses others. The choice depends on the seed and each picture alone, so that
        the order of the rows is of no matter.

    Returns
    -------
    list of str
        Their `image_id`s.
    """
    candidates: set[str] | None = None
    for table in predictions.values():
        held_out = (table["split"] == "test") & ~table["seen_in_training"].astype(bool)
        own = set(table["image_id"][held_out])
        candidates = own if candidates is None else candidates & own
    ranked = sorted(
        candidates or (), key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest()
    )
    return ranked[:number]


def test_pictures_figure(
    pictures: Sequence[np.ndarray],
    answers: Sequence[Mapping[str, Mapping[str, Any]]],
    credit: str,
    path: Path,
) -> None:
    """Draw each picture with the probabilities that the models gave.

    Parameters
    ----------
    pictures
        Crops, `(H, W, 3)` uint8 RGB.
    answers
        For each picture, model name to its row of predictions.
    credit
        Notices and credits of the data sets.
    path
        The PNG.
    """
    if not pictures:
        empty_figure(path, "No test picture is held out from every model.", credit)
        return
    lines = -(-len(pictures) // _COLUMNS)
    height = 1.3 + 4.3 * lines - 0.5
    figure = Figure(figsize=(WIDTH_INCHES, height))
    grid = figure.add_gridspec(
        lines,
        _COLUMNS,
        left=0.075,
        right=0.98,
        top=1 - 0.75 / height,
        bottom=0.95 / height,
        wspace=0.55,
        hspace=0.36,
    )
    for index, (picture, answer) in enumerate(zip(pictures, answers, strict=True)):
        _picture_cell(figure, grid[index // _COLUMNS, index % _COLUMNS], picture, answer)
    names = list(answers[0])
    handles = [
        Line2D([], [], color=colour, linewidth=7, label=f"{model_word(name)}, probability in %")
        for name, colour in zip(names, COLOURS, strict=False)
    ]
    _legend(figure, handles)
    write_png(figure, path, credit)


def training_figure(
    histories: Mapping[str, pd.DataFrame], worst_group: Container[str], credit: str, path: Path
) -> None:
    """Draw loss and validation recall by epoch, a column a model.

    Parameters
    ----------
    histories
        Model name to `epoch, train_loss, valid_loss, valid_recall_score`; an empty table is a
        model that was not trained here, and the figure says so.
    worst_group
        Models whose `valid_recall_score` is the worst group's; the others' is of all pictures.
    credit
        Notices and credits of the data sets.
    path
        The PNG.
    """
    figure = Figure(figsize=(WIDTH_INCHES, 6.4))
    axes = figure.subplots(2, len(histories), squeeze=False)
    for column, (name, history) in enumerate(histories.items()):
        axes[0, column].set_title(
            model_word(name), fontsize=12, loc="left", fontweight="bold", color=INK
        )
        if history.empty:
            _untrained(axes[0, column], axes[1, column])
            continue
        _loss(axes[0, column], history)
        _recall(axes[1, column], history, name in worst_group)
    FigureCanvasAgg(figure)
    figure.tight_layout(rect=(0, 0.05, 1, 1), h_pad=1.6, w_pad=2.5)
    write_png(figure, path, credit)


def _picture_cell(
    figure: Figure, place: SubplotSpec, picture: np.ndarray, answer: Mapping[str, Mapping[str, Any]]
) -> None:
    inner = place.subgridspec(2, 1, height_ratios=(1.25, 1), hspace=0.3)
    top, bottom = figure.add_subplot(inner[0]), figure.add_subplot(inner[1])
    top.imshow(picture)
    top.axis("off")
    first = next(iter(answer.values()))
    top.set_title(f"label: {first['emotion']}", fontsize=10.5, color=INK, fontweight="bold", pad=4)
    shown = [str(first[name]) for name in ("age_band", "gender") if name in first]
    top.text(
        0.5,
        -0.03,
        ", ".join(shown),
        transform=top.transAxes,
        ha="center",
        va="top",
        fontsize=9,
        color=FAINT,
    )
    _bars(bottom, answer)


def _bars(axis: Axes, answer: Mapping[str, Mapping[str, Any]]) -> None:
    named = {name for row in answer.values() for name in _labels(row)}
    labels = in_order(named)
    height = 0.8 / len(answer)
    for index, row in enumerate(answer.values()):
        shares = [100 * float(row.get(f"p_{label}", 0) or 0) for label in labels]
        at = np.arange(len(labels)) + (index - (len(answer) - 1) / 2) * height
        axis.barh(at, shares, height=height, color=COLOURS[index])
    truth = next(iter(answer.values()))["emotion"]
    axis.set_yticks(range(len(labels)), labels, fontsize=8.5, color=INK)
    for tick, label in zip(axis.get_yticklabels(), labels, strict=True):
        tick.set_fontweight("bold" if label == truth else "normal")
    axis.set_ylim(len(labels) - 0.4, -0.6)
    axis.set_xlim(0, 100)
    axis.set_xticks([0, 50, 100])
    axis.tick_params(length=0, labelsize=8.5, labelcolor=FAINT)
    axis.grid(axis="x", color=GRID)
    axis.set_axisbelow(True)
    for side in axis.spines.values():
        side.set_visible(False)
    for index, row in enumerate(answer.values()):
        right = row["y_pred"] == row["emotion"]
        axis.text(
            0.5,
            -0.2 - 0.13 * index,
            f"{'right' if right else 'wrong'}: {row['y_pred']}",
            transform=axis.transAxes,
            ha="center",
            va="top",
            fontsize=9,
            color=COLOURS[index],
            fontweight="normal" if right else "bold",
        )


def _labels(row: Mapping[str, Any]) -> list[str]:
    """Name the labels that a model has: its probabilities that are there."""
    return [
        name.removeprefix("p_")
        for name, value in row.items()
        if str(name).startswith("p_") and value == value
    ]


def _loss(axis: Axes, history: pd.DataFrame) -> None:
    axis.plot(history["epoch"], history["train_loss"], "o-", ms=3.5, color=COLOURS[0])
    axis.plot(history["epoch"], history["valid_loss"], "o-", ms=3.5, color=COLOURS[1])
    handles = [
        Line2D([], [], color=COLOURS[0], label="training"),
        Line2D([], [], color=COLOURS[1], label="validation"),
    ]
    axis.legend(handles=handles, frameon=False, fontsize=9.5)
    axis.set_ylabel("cross-entropy loss", color=FAINT)
    axis.set_ylim(bottom=0)
    _axes_style(axis)


def _recall(axis: Axes, history: pd.DataFrame, of_worst: bool) -> None:
    shares = 100 * history["valid_recall_score"]
    axis.plot(history["epoch"], shares, "o-", ms=3.5, color=COLOURS[2])
    # The epoch that was kept: the highest recall, of equal ones the lowest loss, then the earliest.
    best = history.sort_values(
        ["valid_recall_score", "valid_loss", "epoch"], ascending=[False, True, True]
    ).index[0]
    epoch, share = history["epoch"].loc[best], shares.loc[best]
    axis.plot([epoch], [share], "o", ms=9, mfc="none", mec=INK)
    axis.text(
        0.98,
        0.06,
        f"kept: {share:.1f} % (epoch {int(epoch)})",
        transform=axis.transAxes,
        ha="right",
        fontsize=10,
        color=INK,
    )
    whose = "mean recall of the worst group" if of_worst else "mean recall"
    axis.set_ylabel(f"{whose}\non validation, %", color=FAINT)
    axis.set_xlabel("epoch", color=FAINT)
    axis.set_ylim(0, 102)
    _axes_style(axis)


def _axes_style(axis: Axes) -> None:
    quiet_axes(axis, grid="both")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.spines["left"].set_visible(True)
    axis.spines["left"].set_color(GRID)


def _untrained(top: Axes, bottom: Axes) -> None:
    text = "No training of its own:\nits weights are used as they are, or mixed."
    top.text(0.5, 0.5, text, ha="center", va="center", fontsize=11, color=FAINT)
    for axis in (top, bottom):
        axis.set_axis_off()


def _legend(figure: Figure, handles: Sequence[Line2D]) -> None:
    figure.legend(
        handles=list(handles),
        loc="upper left",
        bbox_to_anchor=(0.005, 1),
        ncols=len(handles),
        frameon=False,
        fontsize=10,
    )
