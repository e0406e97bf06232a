"""Recall by group before and after fine-tuning, the gaps, and the published protocol."""

import pandas as pd

from tasks.core.gap_sentences import largest_gap, percent, points
from tasks.core.labels import ALL
from tasks.core.paths import MODELS
from tasks.report.html.components import Cell, Table, group_row_style, plain
from tasks.report.html.formatting import (
    confidence_text,
    count,
    group_name,
    is_significant,
    methods,
    model_name,
    optional,
    p_value_text,
    people_phrase,
    percent_interval,
    points_interval,
    tone_of,
)
from tasks.report.inputs import Inputs
from tasks.report.sections.cube_rows import group_list, group_rows, pick

_CHANGE_HEAD = ["n", "base model", "fine-tuned model", "change", "gained", "lost", "p"]


def change_table(inputs: Inputs, confidence: float) -> Table:
    """Return both recalls and the change per group, over all emotions."""
    pairs = group_rows(inputs.before_after, inputs.by, crossed=True)
    pairs = [(group, row) for group, row in pairs if row["emotion"] == ALL]
    return Table(
        f"Recall over all emotions with its {confidence_text(confidence)} interval; change in "
        "percentage "
        "points with its paired interval; p corrected for the number of groups that were tested.",
        ["group", *_CHANGE_HEAD],
        [[Cell(group_name(group)), *_change_cells(row)] for group, row in pairs],
        row_styles=[group_row_style(group) for group, _ in pairs],
        methods=methods(inputs.before_after),
    )


def emotion_change_table(inputs: Inputs) -> Table:
    """Return both recalls and the change per emotion and group."""
    pairs = group_rows(inputs.before_after, inputs.by, crossed=False)
    pairs = [(group, row) for group, row in pairs if row["emotion"] != ALL]
    return Table(
        "",
        ["group", "emotion", *_CHANGE_HEAD],
        [[*plain(group_name(group), row["emotion"]), *_change_cells(row)] for group, row in pairs],
        text_columns=["emotion"],
    )


def _change_cells(row: pd.Series) -> list[Cell]:
    recalls = [
        Cell(
            percent(row[f"recall_{model}"]),
            percent_interval(row[f"{model}_ci_low"], row[f"{model}_ci_high"]),
        )
        for model in MODELS
    ]
    change = points(row["change"], signed=True)
    return [
        Cell(count(row["n"])),
        *recalls,
        Cell(change, points_interval(row["ci_low"], row["ci_high"]), tone_of(row)),
        *plain(count(row["gained"]), count(row["lost"]), p_value_text(row["p_adjusted"])),
    ]


def held_out_gaps(inputs: Inputs, model: str) -> pd.DataFrame:
    """Return a model's comparisons on held-out images."""
    gaps = inputs.gaps
    return gaps[(gaps["model"] == model) & (gaps["protocol"] == "held_out")]


def same_comparison(rows: pd.DataFrame, gap: pd.Series) -> pd.DataFrame:
    """Return the rows of a gap's groups, in either order, on its emotion and data set."""
    for name in ("dataset", "dimension", "emotion"):
        rows = rows[rows[name] == gap[name]]
    pair = {gap["group_a"], gap["group_b"]}
    return rows[rows["group_a"].isin(pair) & rows["group_b"].isin(pair)]


def gap_table(inputs: Inputs, model: str) -> Table:
    """Return every tested comparison of a model on held-out images, largest gaps first."""
    rows = held_out_gaps(inputs, model)
    rows = rows[rows["enough_n"].astype(bool)]
    rows = rows.assign(size=rows["gap"].abs()).sort_values("size", ascending=False, kind="stable")
    head = ["a", "b", "emotion", "n of a", "n of b", "recall of a", "recall of b", "gap, points"]
    return Table(
        "",
        [*head, "p", "could have been shown, points"],
        [_gap_cells(row) for _, row in rows.iterrows()],
        text_columns=["b", "emotion"],
    )


def _gap_cells(row: pd.Series) -> list[Cell]:
    a, b = (group_name({row["dimension"]: row[f"group_{side}"]}) for side in "ab")
    within = "" if row["dataset"] == ALL else f" (within {row['dataset']})"
    significant = is_significant(row["p_adjusted"])
    gap, interval = points(row["gap"], signed=True), points_interval(row["ci_low"], row["ci_high"])
    return [
        *plain(a, f"{b}{within}", row["emotion"], count(row["n_a"]), count(row["n_b"])),
        *plain(percent(row["recall_a"]), percent(row["recall_b"])),
        Cell(gap, interval, "bad" if significant else ""),
        *plain(p_value_text(row["p_adjusted"]), "" if significant else _detectable_gap(row)),
    ]


def _detectable_gap(row: pd.Series) -> str:
    mde = row.get("mde", float("nan"))
    return "none" if mde >= 1 else optional(mde, points, "")


def power_words(inputs: Inputs) -> str:
    """Return the power of the smallest detectable gaps, "" if unknown."""
    if "power" not in inputs.gaps or inputs.gaps["power"].isna().all():
        return ""
    return f"{100 * float(inputs.gaps['power'].dropna().iloc[0]):g}\u202f%"


def untested(inputs: Inputs, model: str) -> int:
    """Count a model's held-out comparisons with too few images to be tested."""
    rows = held_out_gaps(inputs, model)
    return int((~rows["enough_n"].astype(bool)).sum())


def protocol_table(inputs: Inputs) -> Table:
    """Return each model's recall on held-out images beside that on every image."""
    rows = []
    for model in MODELS:
        for group in group_list(inputs.groups, inputs.by, crossed=False):
            held_out, every = (
                pick(inputs.groups, inputs.by, group, emotion=ALL, model=model, protocol=protocol)
                for protocol in ("held_out", ALL)
            )
            if len(every):
                names = plain(model_name(model), group_name(group))
                rows.append([*names, *_protocol_cells(held_out, every.iloc[0])])
    head = ["model", "group", "n, held out", "recall, held out", "n, every picture"]
    return Table(
        "Recall over all emotions. Held out: pictures that the model was not trained on. Every "
        "picture: the published protocol.",
        [*head, "recall, every picture (published protocol)", "difference"],
        rows,
        text_columns=["group"],
        methods=methods(inputs.groups),
    )


def _protocol_cells(held_out: pd.DataFrame, every: pd.Series) -> list[Cell]:
    published = [Cell(count(every["n"])), _recall_cell(every)]
    if held_out.empty:
        return [*plain("0", "–"), *published, Cell("–")]
    row = held_out.iloc[0]
    difference = points(every["recall"] - row["recall"], signed=True)
    return [Cell(count(row["n"])), _recall_cell(row), *published, Cell(difference)]


def _recall_cell(row: pd.Series) -> Cell:
    return Cell(percent(row["recall"]), percent_interval(row["ci_low"], row["ci_high"]))


def protocol_gap(inputs: Inputs) -> str:
    """Describe the base model's largest gap under the published protocol."""
    gap = largest_gap(inputs.gaps, MODELS[0], single_emotions=False)
    if gap is None:
        return ""
    same = same_comparison(inputs.gaps[inputs.gaps["protocol"] == ALL], gap).set_index("model")
    phrases = []
    for model in MODELS:
        if model in same.index:
            row = same.loc[model]
            swapped = row["group_a"] != gap["group_a"]
            sign, (n_a, n_b) = (-1, ("n_b", "n_a")) if swapped else (1, ("n_a", "n_b"))
            limits = sorted((sign * row["ci_low"], sign * row["ci_high"]))
            phrases.append(
                f"{points(sign * row['gap'], signed=True)} points for the {model_name(model)} "
                f"({confidence_text(row['confidence'])} interval {points_interval(*limits)}, "
                f"n\u00a0=\u00a0{count(row[n_a])} and "
                f"{count(row[n_b])})"
            )
    a, b = (people_phrase({gap["dimension"]: gap[f"group_{side}"]}) for side in "ab")
    return f"Under the published protocol, {a} against {b}: {' and '.join(phrases)}."
