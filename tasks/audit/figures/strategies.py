"""Scatter plot of each strategy's gain in one group against its losses in the others."""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tasks.core.gap_sentences import people, points
from tasks.core.labels import ALL
from tasks.core.plotting.style import (
    COLORS,
    FAINT,
    INK,
    WIDTH_INCHES,
    empty_figure,
    mark,
    quiet_axes,
    save,
)

_SYMBOLS = ("o", "s", "^", "D", "v", "P")


def strategies_figure(table: pd.DataFrame, credit: str, path: Path) -> None:
    """Draw each strategy's change in the fine-tuned group against that in its worst other group.

    `table` is the result of `strategies_table`. Where it cannot be drawn, the figure gives the
    reason.
    """
    why = _nothing_to_draw(table)
    if why:
        empty_figure(path, why, credit)
        return
    groups = table[table["group"] != ALL]
    gained = groups[groups["is_target_group"].astype(bool)].set_index("strategy")
    others = groups[~groups["is_target_group"].astype(bool)]
    worst = others.loc[others.groupby("strategy", sort=False)["change"].idxmin()]
    worst = worst.set_index("strategy")
    figure = Figure(figsize=(WIDTH_INCHES, 6.4))
    axis = figure.subplots()
    handles = []
    for index, name in enumerate(gained.index):
        color, symbol = COLORS[index % len(COLORS)], _SYMBOLS[index % len(_SYMBOLS)]
        _strategy(axis, gained.loc[name], worst.loc[name], color, symbol)
        handles.append(mark(color, _label(gained.loc[name], worst.loc[name]), symbol))
    who = people(str(gained["dimension"].iloc[0]), str(gained["group"].iloc[0]))
    _axes(axis, who)
    axis.legend(handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    level = 100 * table["confidence"].iloc[0]
    title = (
        f"What each strategy gives {who} and takes from the worst other group, against the base "
        f"model,\non pictures that no model has seen (bars: {level:g} % intervals, "
        "clustered by subject)"
    )
    save(figure, path, title, credit)


def _nothing_to_draw(table: pd.DataFrame) -> str:
    """Return why there is nothing to draw, or ""."""
    if table.empty:
        return "No strategy was carried out, or no picture is unseen by all: nothing to compare"
    groups = table[table["group"] != ALL]
    if not groups["is_target_group"].astype(bool).any():
        why = str(table["note"].iloc[0])
        return (
            f"{why[:1].upper()}{why[1:]}: there is no one gain to weigh\nagainst losses elsewhere"
        )
    if groups["is_target_group"].astype(bool).all():
        return "All unseen pictures are of the group that was fine-tuned on: no other can lose"
    return ""


def _strategy(axis: Axes, gain: pd.Series, loss: pd.Series, color: str, symbol: str) -> None:
    """Draw a mark with bars both ways; the chosen strategy's has a ring."""
    x, y = 100 * gain["change"], 100 * loss["change"]
    across = [100 * gain["ci_low"], 100 * gain["ci_high"]]
    upward = [100 * loss["ci_low"], 100 * loss["ci_high"]]
    axis.plot(across, [y, y], color=color, linewidth=1.4, alpha=0.75)
    axis.plot([x, x], upward, color=color, linewidth=1.4, alpha=0.75)
    axis.plot([x], [y], symbol, color=color, markersize=8, zorder=3)
    if gain["chosen"]:
        axis.plot([x], [y], "o", markersize=17, mfc="none", mec=INK, mew=1.5, zorder=4)


def _label(gain: pd.Series, loss: pd.Series) -> str:
    chosen = " (chosen, ringed)" if gain["chosen"] else ""
    changes = [
        f"{people(row['dimension'], row['group'])} {points(row['change'], signed=True)} "
        f"(n = {row['n']})"
        for row in (gain, loss)
    ]
    return "\n  ".join([f"{gain.name}{chosen}", *changes])


def _axes(axis: Axes, who: str) -> None:
    axis.axhline(0, color=INK, linewidth=0.8)
    axis.axvline(0, color=INK, linewidth=0.8)
    axis.set_xlabel(f"change in recall of {who}, percentage points", color=FAINT)
    axis.set_ylabel("change in the worst other group, percentage points", color=FAINT)
    quiet_axes(axis, grid="both")
    axis.margins(0.08)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axis.yaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
