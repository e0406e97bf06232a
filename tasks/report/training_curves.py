"""The report's training curves."""

from collections.abc import Container, Mapping
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tasks.core.plotting.style import (
    COLORS,
    FAINT,
    GRID,
    INK,
    WIDTH_INCHES,
    as_written,
    quiet_axes,
    write_png,
)
from tasks.report.html.formatting import model_name


def training_figure(
    histories: Mapping[str, pd.DataFrame],
    worst_group: Container[str],
    checkpoints: Mapping[str, str],
    credit: str,
    path: Path,
) -> None:
    """Draw loss and validation recall by epoch, one column per model.

    `histories` maps each model to `epoch, train_loss, valid_loss, valid_recall_score`; an empty
    table stands for a model that was not trained here. The recall of the models in `worst_group` is
    that of the worst group. `checkpoints` names the saved epoch: `best`, `best_accuracy` or `last`.
    """
    figure = Figure(figsize=(WIDTH_INCHES, 6.4))
    axes = figure.subplots(2, len(histories), squeeze=False)
    for column, (name, history) in enumerate(histories.items()):
        axes[0, column].set_title(
            model_name(name), fontsize=12, loc="left", fontweight="bold", color=INK
        )
        if history.empty:
            _untrained(axes[0, column], axes[1, column])
            continue
        _loss(axes[0, column], history)
        _recall(axes[1, column], history, name in worst_group, checkpoints[name])
    FigureCanvasAgg(figure)
    with as_written(figure):
        figure.tight_layout(rect=(0, 0.05, 1, 1), h_pad=1.6, w_pad=2.5)
    write_png(figure, path, credit)


def _loss(axis: Axes, history: pd.DataFrame) -> None:
    axis.plot(history["epoch"], history["train_loss"], "o-", ms=3.5, color=COLORS[0])
    axis.plot(history["epoch"], history["valid_loss"], "o-", ms=3.5, color=COLORS[1])
    handles = [
        Line2D([], [], color=COLORS[0], label="training"),
        Line2D([], [], color=COLORS[1], label="validation"),
    ]
    axis.legend(handles=handles, frameon=False, fontsize=9.5)
    axis.set_ylabel("loss", color=FAINT)
    axis.set_ylim(bottom=0)
    _axes_style(axis)


def _recall(axis: Axes, history: pd.DataFrame, of_worst: bool, checkpoint: str) -> None:
    shares = 100 * history["valid_recall_score"]
    axis.plot(history["epoch"], shares, "o-", ms=3.5, color=COLORS[2])
    # The best epoch has the highest score; ties go to the lowest loss, then to the earliest.
    score = "valid_accuracy_score" if checkpoint == "best_accuracy" else "valid_recall_score"
    ranked = history.sort_values([score, "valid_loss", "epoch"], ascending=[False, True, True])
    saved = history.index[-1] if checkpoint == "last" else ranked.index[0]
    epoch, share = history["epoch"].loc[saved], shares.loc[saved]
    axis.plot([epoch], [share], "o", ms=9, mfc="none", mec=INK)
    axis.text(
        0.98,
        0.06,
        f"saved: {share:.1f} % (epoch {int(epoch)})",
        transform=axis.transAxes,
        ha="right",
        fontsize=10,
        color=INK,
    )
    measure = "mean recall of the worst group" if of_worst else "mean recall"
    axis.set_ylabel(f"{measure}\non validation, %", color=FAINT)
    axis.set_xlabel("epoch", color=FAINT)
    axis.set_ylim(0, 102)
    _axes_style(axis)


def _axes_style(axis: Axes) -> None:
    quiet_axes(axis, grid="both")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.spines["left"].set_visible(True)
    axis.spines["left"].set_color(GRID)


def _untrained(top: Axes, bottom: Axes) -> None:
    text = "Not trained here:\nits weights are those of one model, or interpolated."
    top.text(0.5, 0.5, text, ha="center", va="center", fontsize=11, color=FAINT)
    for axis in (top, bottom):
        axis.set_axis_off()
