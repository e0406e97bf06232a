"""Fairness metrics: worst groups, calibration by group, confusions of one group."""

from collections.abc import Callable

import pandas as pd

from tasks.core.gap_sentences import percent, points
from tasks.core.labels import ALL
from tasks.core.paths import MODELS
from tasks.report.html.components import Block, Cell, Table, plain
from tasks.report.html.formatting import (
    capital,
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
)
from tasks.report.inputs import Inputs

_METRICS = {
    "true_positive_rate": "read as it, of its own pictures (recall)",
    "false_positive_rate": "read as it, of the others' pictures",
}
_PAIR = ("disgust", "anger")  # always listed: the pair that is confused most in children


def fairness_section(inputs: Inputs) -> Block:
    """Return worst and best group, difference and ratio, per model and dimension."""
    table = _of_models(inputs.further["fairness"])
    if table.empty:
        return Block(missing="No two groups have held-out pictures, so none is worst or best.")
    pooled = table[table["emotion"] == ALL]
    collapsed = []
    for name in MODELS:
        by_emotion = table[(table["emotion"] != ALL) & (table["model"] == name)]
        if len(by_emotion):
            collapsed.append(
                (f"By emotion, with equalized odds: {model_name(name)}", _by_emotion(by_emotion))
            )
    return Block(tables=[_worst_and_best(pooled)] if len(pooled) else [], collapsed=collapsed)


def calibration_section(inputs: Inputs) -> Block:
    """Return each model's confidence beside its accuracy, by group."""
    table = _of_models(inputs.further["calibration"])
    if table.empty:
        return Block(
            missing="Calibration cannot be computed: the predictions hold no probabilities, or no "
            "picture is held out."
        )
    summary = table[table["bin"] == ALL]
    tables = [
        _calibration(summary[summary["model"] == name], name)
        for name in MODELS
        if (summary["model"] == name).any()
    ]
    return Block(sentences=_overconfident(summary, inputs.min_n), tables=tables)


def confusion_gaps_section(inputs: Inputs) -> Block:
    """Return confusions that differ between groups, and those of disgust and anger."""
    table = _of_models(inputs.further["confusion_gaps"])
    if table.empty:
        return Block(missing="No two groups could be compared in what they are read as.")
    sentences, tables = [], []
    for name in MODELS:
        rows = table[table["model"] == name]
        wrong = rows[rows["emotion"] != rows["y_pred"]]
        differs = wrong["p_adjusted"].map(is_significant)
        is_pair = wrong["emotion"].isin(_PAIR) & wrong["y_pred"].isin(_PAIR)
        if len(wrong):
            sentences.append(
                f"{capital(model_name(name))}: {int(differs.sum())} of {len(wrong)} confusions "
                "differ between two groups so far that it could be shown; all of them are in "
                "reports/tables/confusion_gaps.csv."
            )
            listed = wrong[differs | is_pair]
            listed = listed.assign(size=listed["gap"].abs())
            order = listed.sort_values("size", ascending=False, kind="stable")
            tables += [_confusions(order, name)] if len(order) else []
    return Block(sentences=sentences, tables=tables)


def _worst_and_best(rows: pd.DataFrame) -> Table:
    head = ["model", "groups by", "worst group", "recall", "best group", "recall"]
    head += ["difference, points", "ratio", "p", "fewest pictures", "left out, too few pictures"]
    return Table(
        caption="Recall over all emotions on held-out pictures: the groups with the lowest and the "
        "highest recall. Both are selected after the fact: the intervals hold for whichever groups "
        "are the extremes, and p is the chance of such a difference if no two groups differed. "
        "The figures themselves are still those of extremes; corrected for what chance adds, they "
        "are in reports/tables/fairness.csv (worst_shrunken, best_shrunken).",
        head=head,
        rows=[
            [
                *plain(model_name(str(row["model"])), str(row["dimension"]).replace("_", " ")),
                *_extremes(row),
                Cell(optional(row["p_value"], p_value_text)),
                *plain(optional(row["n_smallest"], count), str(row["left_out_groups"]) or "none"),
            ]
            for _, row in rows.iterrows()
        ],
        text_columns=["groups by", "worst group", "best group", "left out, too few pictures"],
        wrapped_columns=["left out, too few pictures"],
        methods=methods(rows),
    )


def _by_emotion(rows: pd.DataFrame) -> Table:
    head = ["groups by", "emotion", "share", "worst group", "worst", "best group", "best"]
    head += ["difference, points", "ratio", "equalized odds difference", "fewest pictures"]
    return Table(
        caption="One emotion against the others, held-out pictures. The equalized odds difference "
        "is the larger of an emotion's two differences, from 0 to 1; its interval covers both at "
        "once.",
        head=[*head, "left out, too few"],
        rows=[
            [
                *plain(str(row["dimension"]).replace("_", " "), str(row["emotion"])),
                Cell(_METRICS.get(str(row["metric"]), str(row["metric"]).replace("_", " "))),
                *_extremes(row),
                Cell(
                    _two_decimals(row["equalized_odds_difference"]),
                    _interval(row, "equalized_odds", _ratio_interval),
                ),
                *plain(optional(row["n_smallest"], count), str(row["left_out_groups"]) or "none"),
            ]
            for _, row in rows.iterrows()
        ],
        text_columns=["emotion", "share", "worst group", "best group", "left out, too few"],
        wrapped_columns=["share"],
        methods=methods(rows),
    )


def _extremes(row: pd.Series) -> list[Cell]:
    """Return the cells of worst and best group, their difference and their ratio."""
    dimension = str(row["dimension"])
    names = [str(row[f"{side}_group"]) for side in ("worst", "best")]
    worst, best = (group_name({dimension: name}) if name else "–" for name in names)
    difference_interval = _interval(row, "difference", points_interval)
    return [
        *(
            Cell(worst),
            Cell(optional(row["worst"], percent), _interval(row, "worst", percent_interval)),
        ),
        *(
            Cell(best),
            Cell(optional(row["best"], percent), _interval(row, "best", percent_interval)),
        ),
        Cell(optional(row["difference"], points), difference_interval),
        Cell(_two_decimals(row["ratio"]), _interval(row, "ratio", _ratio_interval)),
    ]


def _interval(row: pd.Series, name: str, write: Callable[[float, float], str]) -> str:
    """Format the interval of one of the fairness metrics, "" if it has none."""
    low, high = row[f"{name}_ci_low"], row[f"{name}_ci_high"]
    return "" if low != low else write(low, high)


def _calibration(rows: pd.DataFrame, model: str) -> Table:
    head = ["group", "n", "people", "mean probability of the answer", "answers that are right"]
    head += ["overconfidence, points", "expected calibration error", "p", "p, other groups"]
    return Table(
        caption=f"{capital(model_name(model))}, held-out pictures: how sure it is of its answers, "
        "and how many are right. Overconfidence is the first minus the second; the expected "
        "calibration error is the mean distance of both over bins of pictures, without the part "
        "that chance adds where pictures are few: 0 is best, at most 1, and a figure below 0 reads "
        "as 0. p: whether the error could be 0, and whether it could be that of the other groups; "
        "corrected for the number of groups.",
        head=head,
        rows=[
            [
                Cell(group_name(_group(row))),
                *plain(count(row["n"]), optional(row["subjects"], count)),
                *plain(
                    optional(row["confidence_mean"], percent), optional(row["accuracy"], percent)
                ),
                Cell(points(row["overconfidence"], signed=True), _overconfidence_interval(row)),
                Cell(_three_decimals(row["ece_loss"]), _error_interval(row)),
                *plain(
                    *(
                        optional(row[n], p_value_text)
                        for n in ("p_adjusted", "from_others_p_adjusted")
                    )
                ),
            ]
            for _, row in rows.iterrows()
        ],
        methods=methods(rows),
    )


def _overconfident(summary: pd.DataFrame, min_n: int) -> list[str]:
    """Name the group for which each model's confidence is furthest from its accuracy."""
    sentences = []
    for name in MODELS:
        rows = summary[(summary["model"] == name) & (summary["group"] != ALL)]
        rows = rows[rows["overconfidence_ci_low"].notna() & (rows["n"] >= min_n)]
        if rows.empty:
            continue
        row = rows.iloc[int(rows["overconfidence"].abs().argmax())]
        direction = "surer" if row["overconfidence"] > 0 else "less sure"
        undecided = row["overconfidence_ci_low"] <= 0 <= row["overconfidence_ci_high"]
        sentences.append(
            f"{capital(model_name(name))}: furthest off for {people_phrase(_group(row))}, with a "
            f"mean probability of {percent(row['confidence_mean'])} where "
            f"{percent(row['accuracy'])} of the answers are right. It is "
            f"{points(abs(row['overconfidence']))} points {direction} than right (overconfidence "
            f"{points(row['overconfidence'], signed=True)}, {confidence_text(row['confidence'])} "
            "interval "
            f"{_overconfidence_interval(row)}, n\u00a0=\u00a0{count(row['n'])})."
            + (" The interval holds 0: it could be neither." if undecided else "")
        )
    return sentences


def _confusions(rows: pd.DataFrame, model: str) -> Table:
    return Table(
        caption=f"{capital(model_name(model))}, held-out pictures: how often pictures of one label "
        "are read as another, for two groups. Confusions of disgust and anger are always listed, "
        "others where a difference could be shown (in red).",
        head=["label", "read as", "a", "b", "n of a", "n of b", "share of a", "share of b",
              "gap, points", "p"],
        rows=[
            [
                *plain(str(row["emotion"]), str(row["y_pred"])),
                *plain(
                    *(group_name({row["dimension"]: str(row[f"group_{side}"])}) for side in "ab")
                ),
                *plain(count(row["n_a"]), count(row["n_b"])),
                *plain(optional(row["share_a"], percent), optional(row["share_b"], percent)),
                Cell(
                    points(row["gap"], signed=True),
                    points_interval(row["ci_low"], row["ci_high"]),
                    "bad" if is_significant(row["p_adjusted"]) else "",
                ),
                Cell(p_value_text(row["p_adjusted"])),
            ]
            for _, row in rows.iterrows()
        ],
        text_columns=["read as", "a", "b"],
        methods=methods(rows),
    )  # fmt: skip


def _of_models(table: pd.DataFrame) -> pd.DataFrame:
    if table.empty:
        return table
    return table[(table["protocol"] == "held_out") & table["model"].isin(MODELS)]


def _group(row: pd.Series) -> dict[str, str]:
    pooled = row["dimension"] == ALL or row["group"] == ALL
    return {} if pooled else {str(row["dimension"]): str(row["group"])}


def _error_interval(row: pd.Series) -> str:
    if row["ci_low"] != row["ci_low"]:
        return "no interval"
    return f"{row['ci_low']:.3f} to {row['ci_high']:.3f}"


def _overconfidence_interval(row: pd.Series) -> str:
    return points_interval(row["overconfidence_ci_low"], row["overconfidence_ci_high"])


def _three_decimals(value: float) -> str:
    return optional(value, "{:.3f}".format)


def _two_decimals(value: float) -> str:
    return optional(value, "{:.2f}".format)


def _ratio_interval(low: float, high: float) -> str:
    return f"{low:.2f} to {high:.2f}"
