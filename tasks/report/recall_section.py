"""Recall by group before and after fine-tuning, the gaps, and the published protocol."""

from typing import Any

import pandas as pd

from tasks.core.headline import largest_gap, percent, points
from tasks.core.labels import ALL
from tasks.core.paths import MODELS
from tasks.report.cells import group_list, pick
from tasks.report.inputs import Inputs
from tasks.report.words import (
    count,
    figures_of,
    group_word,
    level,
    model_word,
    p_word,
    people_word,
    shown,
    span,
    span_points,
)


def change_rows(inputs: Inputs) -> list[dict[str, Any]]:
    """Return both recalls and the change for every group, over all emotions."""
    table = inputs.before_after
    if table.empty:
        return []
    groups = group_list(table, inputs.by, crossed=True)
    cells = [(where, pick(table, inputs.by, where, emotion=ALL)) for where in groups]
    return [_change_row(where, rows.iloc[0]) for where, rows in cells if len(rows)]


def emotion_rows(inputs: Inputs) -> list[dict[str, Any]]:
    """Return the same for every emotion of every group of one dimension."""
    table = inputs.before_after
    if table.empty:
        return []
    rows = []
    for where in group_list(table, inputs.by, crossed=False):
        cells = pick(table, inputs.by, where)
        for _, row in cells[cells["emotion"] != ALL].iterrows():
            rows.append({"emotion": row["emotion"], **_change_row(where, row)})
    return rows


def gap_rows(inputs: Inputs, model: str) -> list[dict[str, str]]:
    """Return every tested comparison of a model on held-out pictures, largest gaps first."""
    gaps = inputs.gaps
    rows = gaps[(gaps["model"] == model) & (gaps["protocol"] == "held_out")]
    rows = rows[rows["enough_n"].astype(bool)]
    rows = rows.assign(size=rows["gap"].abs()).sort_values("size", ascending=False, kind="stable")
    return [
        {
            "a": group_word({row["dimension"]: row["group_a"]}),
            "b": group_word({row["dimension"]: row["group_b"]}),
            "within": "" if row["dataset"] == ALL else row["dataset"],
            "emotion": "all" if row["emotion"] == ALL else row["emotion"],
            "n_a": count(row["n_a"]),
            "n_b": count(row["n_b"]),
            "recall_a": percent(row["recall_a"]),
            "recall_b": percent(row["recall_b"]),
            "gap": points(row["gap"], signed=True),
            "interval": span_points(row["ci_low"], row["ci_high"]),
            "p": p_word(row["p_adjusted"]),
            "shown": shown(row["p_adjusted"]),
            "least": "" if shown(row["p_adjusted"]) else _least(row),
        }
        for _, row in rows.iterrows()
    ]


def _least(row: pd.Series) -> str:
    """Write the smallest gap that a comparison could have shown, in points."""
    mde = row.get("mde", float("nan"))
    if mde != mde:
        return ""
    return "none" if mde >= 1 else points(mde)


def power_words(inputs: Inputs) -> str:
    """Say with which power the smallest gaps are told; "" where they are not."""
    if "power" not in inputs.gaps or inputs.gaps["power"].isna().all():
        return ""
    return f"{100 * float(inputs.gaps['power'].dropna().iloc[0]):g}\u202f%"


def untested(inputs: Inputs, model: str) -> int:
    """Count a model's held-out comparisons with too few pictures on a side to be tested."""
    gaps = inputs.gaps
    rows = gaps[(gaps["model"] == model) & (gaps["protocol"] == "held_out")]
    return int((~rows["enough_n"].astype(bool)).sum())


def protocol_rows(inputs: Inputs) -> list[dict[str, Any]]:
    """Return each model's recall on held-out pictures beside that on every picture."""
    rows = []
    for model in MODELS:
        for where in group_list(inputs.groups, inputs.by, crossed=False):
            sides = {
                protocol: pick(
                    inputs.groups, inputs.by, where, emotion=ALL, model=model, protocol=protocol
                )
                for protocol in ("held_out", ALL)
            }
            if sides[ALL].empty:
                continue
            rows.append(_protocol_row(model, where, sides["held_out"], sides[ALL].iloc[0]))
    return rows


def protocol_gap(inputs: Inputs) -> str:
    """Say how the largest gap of the base model looks under the published protocol."""
    gap = largest_gap(inputs.gaps, MODELS[0], single_emotions=False)
    if gap is None:
        return ""
    same = inputs.gaps[inputs.gaps["protocol"] == ALL]
    for name in ("dataset", "dimension", "emotion"):
        same = same[same[name] == gap[name]]
    pair = {gap["group_a"], gap["group_b"]}
    same = same[same["group_a"].isin(pair) & same["group_b"].isin(pair)].set_index("model")
    said = []
    for model in MODELS:
        if model in same.index:
            row = same.loc[model]
            turned = row["group_a"] != gap["group_a"]
            sign, (n_a, n_b) = (-1, ("n_b", "n_a")) if turned else (1, ("n_a", "n_b"))
            limits = sorted((sign * row["ci_low"], sign * row["ci_high"]))
            said.append(
                f"{points(sign * row['gap'], signed=True)} points for the {model_word(model)} "
                f"({level(row['confidence'])} interval {span_points(*limits)}, "
                f"n\u00a0=\u00a0{count(row[n_a])} and "
                f"{count(row[n_b])})"
            )
    a, b = (people_word({gap["dimension"]: gap[f"group_{side}"]}) for side in "ab")
    return f"Under the published protocol, {a} against {b}: {' and '.join(said)}."


def _change_row(where: dict[str, str], row: pd.Series) -> dict[str, Any]:
    return {
        "group": group_word(where),
        "depth": len(where),
        "n": count(row["n"]),
        "base": percent(row["recall_base"]),
        "base_interval": span(row["base_ci_low"], row["base_ci_high"]),
        "finetuned": percent(row["recall_finetuned"]),
        "finetuned_interval": span(row["finetuned_ci_low"], row["finetuned_ci_high"]),
        "change": points(row["change"], signed=True),
        "interval": span_points(row["ci_low"], row["ci_high"]),
        "gained": count(row["gained"]),
        "lost": count(row["lost"]),
        "p": p_word(row["p_adjusted"]),
        "tone": ("gain" if row["change"] > 0 else "loss") if shown(row["p_adjusted"]) else "",
    }


def _protocol_row(
    model: str, where: dict[str, str], held_out: pd.DataFrame, every: pd.Series
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "model": model_word(model),
        "group": group_word(where),
        "all": figures_of(every),
        "held_out": None,
        "difference": "–",
    }
    if len(held_out):
        row["held_out"] = figures_of(held_out.iloc[0])
        row["difference"] = points(every["recall"] - held_out["recall"].iloc[0], signed=True)
    return row
