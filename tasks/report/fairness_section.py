"""Figures that the field knows: worst groups, calibration by group, confusions of one group."""

from collections.abc import Callable

import pandas as pd

from tasks.core.headline import percent, points
from tasks.core.labels import ALL
from tasks.core.paths import MODELS
from tasks.report.block import Block, Cell, Table, words_of
from tasks.report.inputs import Inputs
from tasks.report.words import (
    capital,
    count,
    group_word,
    level,
    methods,
    model_word,
    p_word,
    people_word,
    shown,
    span,
    span_points,
)

_METRICS = {
    "true_positive_rate": "read as it, of its own pictures (recall)",
    "false_positive_rate": "read as it, of the others' pictures",
}
_PAIR = ("disgust", "anger")  # always shown: the pair that is confused most in children


def fairness_section(inputs: Inputs) -> Block:
    """Return worst and best group, difference and ratio, for each model and dimension."""
    table = _of_models(inputs.further["fairness"])
    if table.empty:
        return Block(missing="No two groups have held-out pictures, so none is worst or best.")
    pooled = table[table["emotion"] == ALL]
    more = []
    for name in MODELS:
        single = table[(table["emotion"] != ALL) & (table["model"] == name)]
        if len(single):
            more.append(
                (f"By emotion, with equalised odds: {model_word(name)}", _by_emotion(single))
            )
    return Block(tables=[_worst_and_best(pooled)] if len(pooled) else [], more=more)


def calibration_section(inputs: Inputs) -> Block:
    """Return how sure each model is beside how often it is right, by group."""
    table = _of_models(inputs.further["calibration"])
    if table.empty:
        return Block(
            missing="Calibration cannot be told: the predictions hold no probabilities, or no "
            "picture is held out."
        )
    summary = table[table["bin"] == ALL]
    tables = [
        _calibration(summary[summary["model"] == name], name)
        for name in MODELS
        if (summary["model"] == name).any()
    ]
    return Block(said=_overconfident(summary, inputs.min_n), tables=tables)


def confusion_gaps_section(inputs: Inputs) -> Block:
    """Return confusions that one group has and another does not, and those of disgust and anger."""
    table = _of_models(inputs.further["confusion_gaps"])
    if table.empty:
        return Block(missing="No two groups could be compared in what they are read as.")
    said, tables = [], []
    for name in MODELS:
        own = table[table["model"] == name]
        wrong = own[own["emotion"] != own["y_pred"]]
        differs = wrong["p_adjusted"].map(shown)
        always = wrong["emotion"].isin(_PAIR) & wrong["y_pred"].isin(_PAIR)
        if len(wrong):
            said.append(
                f"{capital(model_word(name))}: {int(differs.sum())} of {len(wrong)} confusions "
                "differ between two groups so far that it could be shown; all of them are in "
                "reports/tables/confusion_gaps.csv."
            )
            kept = wrong[differs | always]
            size = kept["gap"].abs()
            order = kept.assign(size=size).sort_values("size", ascending=False, kind="stable")
            tables += [_confusions(order, name)] if len(order) else []
    return Block(said=said, tables=tables)


def _worst_and_best(rows: pd.DataFrame) -> Table:
    head = ["model", "groups by", "worst group", "recall", "best group", "recall"]
    head += ["difference, points", "ratio", "p", "fewest pictures", "left out, too few pictures"]
    return Table(
        caption="Recall over all emotions on held-out pictures: the group that is read worst, and "
        "the one read best. Both are picked after looking: the intervals hold for whichever groups "
        "come out as extremes, and p is the chance of such a difference if no two groups differed. "
        "The figures themselves are still those of extremes; less what chance adds to them, they "
        "are in reports/tables/fairness.csv (worst_shrunken, best_shrunken).",
        head=head,
        rows=[
            [
                *words_of(model_word(str(row["model"])), str(row["dimension"]).replace("_", " ")),
                *_extremes(row),
                Cell(_p(row["p_value"])),
                *words_of(_count(row["n_smallest"]), str(row["left_out_groups"]) or "none"),
            ]
            for _, row in rows.iterrows()
        ],
        words=["groups by", "worst group", "best group", "left out, too few pictures"],
        wide=["left out, too few pictures"],
        how=methods(rows),
    )


def _by_emotion(rows: pd.DataFrame) -> Table:
    head = ["groups by", "emotion", "share", "worst group", "worst", "best group", "best"]
    head += ["difference, points", "ratio", "equalised odds difference", "fewest pictures"]
    return Table(
        caption="One emotion against the others, held-out pictures. The equalised odds difference "
        "is the larger one of the two differences of an emotion, from 0 to 1; its interval holds "
        "both at once.",
        head=[*head, "left out, too few"],
        rows=[
            [
                *words_of(str(row["dimension"]).replace("_", " "), str(row["emotion"])),
                Cell(_METRICS.get(str(row["metric"]), str(row["metric"]).replace("_", " "))),
                *_extremes(row),
                Cell(
                    _plain(row["equalised_odds_difference"]),
                    _between(row, "equalised_odds", _plain_span),
                ),
                *words_of(_count(row["n_smallest"]), str(row["left_out_groups"]) or "none"),
            ]
            for _, row in rows.iterrows()
        ],
        words=["emotion", "share", "worst group", "best group", "left out, too few"],
        wide=["share"],
        how=methods(rows),
    )


def _extremes(row: pd.Series) -> list[Cell]:
    """Write worst and best group with their shares, the difference and the ratio."""
    dimension = str(row["dimension"])
    names = [str(row[f"{side}_group"]) for side in ("worst", "best")]
    worst, best = (group_word({dimension: name}) if name else "–" for name in names)
    apart = _between(row, "difference", span_points)
    return [
        *(Cell(worst), Cell(_share(row["worst"]), _between(row, "worst", span))),
        *(Cell(best), Cell(_share(row["best"]), _between(row, "best", span))),
        Cell(_points(row["difference"]), apart),
        Cell(_plain(row["ratio"]), _between(row, "ratio", _plain_span)),
    ]


def _between(row: pd.Series, name: str, write: Callable[[float, float], str]) -> str:
    """Write the interval of one of the fairness figures, "" where there is none."""
    low, high = row[f"{name}_ci_low"], row[f"{name}_ci_high"]
    return "" if low != low else write(low, high)


def _calibration(rows: pd.DataFrame, model: str) -> Table:
    head = ["group", "n", "people", "mean probability of the answer", "answers that are right"]
    head += ["overconfidence, points", "expected calibration error", "p", "p, other groups"]
    return Table(
        caption=f"{capital(model_word(model))}, held-out pictures: how sure it is of its answers, "
        "and how many are right. Overconfidence is the first less the second; the expected "
        "calibration error is the mean distance of both over bins of pictures, without the part "
        "that chance adds where pictures are few: 0 is best, at most 1, and a figure below 0 reads "
        "as 0. p: whether the error could be 0, and whether it could be that of the other groups; "
        "corrected for the number of groups.",
        head=head,
        rows=[
            [
                Cell(group_word(_where(row))),
                *words_of(count(row["n"]), _count(row["subjects"])),
                *words_of(_share(row["confidence_mean"]), _share(row["accuracy"])),
                Cell(points(row["overconfidence"], signed=True), _over(row)),
                Cell(_decimals(row["ece_loss"]), _limits(row)),
                *words_of(*(_p(row[n]) for n in ("p_adjusted", "from_others_p_adjusted"))),
            ]
            for _, row in rows.iterrows()
        ],
        how=methods(rows),
    )


def _overconfident(summary: pd.DataFrame, min_n: int) -> list[str]:
    """Say for which group each model's probabilities are furthest from what they promise."""
    said = []
    for name in MODELS:
        rows = summary[(summary["model"] == name) & (summary["group"] != ALL)]
        rows = rows[rows["overconfidence_ci_low"].notna() & (rows["n"] >= min_n)]
        if rows.empty:
            continue
        row = rows.iloc[int(rows["overconfidence"].abs().argmax())]
        way = "surer" if row["overconfidence"] > 0 else "less sure"
        undecided = row["overconfidence_ci_low"] <= 0 <= row["overconfidence_ci_high"]
        said.append(
            f"{capital(model_word(name))}: furthest off for {people_word(_where(row))}, with a "
            f"mean probability of {percent(row['confidence_mean'])} where "
            f"{percent(row['accuracy'])} of the answers are right. It is "
            f"{points(abs(row['overconfidence']))} points {way} than right (overconfidence "
            f"{points(row['overconfidence'], signed=True)}, {level(row['confidence'])} interval "
            f"{_over(row)}, n\u00a0=\u00a0{count(row['n'])})."
            + (" The interval holds 0: it could be neither." if undecided else "")
        )
    return said


def _confusions(rows: pd.DataFrame, model: str) -> Table:
    return Table(
        caption=f"{capital(model_word(model))}, held-out pictures: how often pictures of one label "
        "are read as another, for two groups. Confusions of disgust and anger are always listed, "
        "others where a difference could be shown (in red).",
        head=["label", "read as", "a", "b", "n of a", "n of b", "share of a", "share of b",
              "gap, points", "p"],
        rows=[
            [
                *words_of(str(row["emotion"]), str(row["y_pred"])),
                *words_of(
                    *(group_word({row["dimension"]: str(row[f"group_{side}"])}) for side in "ab")
                ),
                *words_of(count(row["n_a"]), count(row["n_b"])),
                *words_of(_share(row["share_a"]), _share(row["share_b"])),
                Cell(
                    points(row["gap"], signed=True),
                    span_points(row["ci_low"], row["ci_high"]),
                    "bad" if shown(row["p_adjusted"]) else "",
                ),
                Cell(p_word(row["p_adjusted"])),
            ]
            for _, row in rows.iterrows()
        ],
        words=["read as", "a", "b"],
        how=methods(rows),
    )  # fmt: skip


def _of_models(table: pd.DataFrame) -> pd.DataFrame:
    """Keep the held-out figures of the base and the fine-tuned model."""
    if table.empty:
        return table
    return table[(table["protocol"] == "held_out") & table["model"].isin(MODELS)]


def _where(row: pd.Series) -> dict[str, str]:
    pooled = row["dimension"] == ALL or row["group"] == ALL
    return {} if pooled else {str(row["dimension"]): str(row["group"])}


def _limits(row: pd.Series) -> str:
    if row["ci_low"] != row["ci_low"]:
        return "no interval"
    return f"{row['ci_low']:.3f} to {row['ci_high']:.3f}"


def _over(row: pd.Series) -> str:
    return span_points(row["overconfidence_ci_low"], row["overconfidence_ci_high"])


def _decimals(value: float) -> str:
    return "–" if value != value else f"{value:.3f}"


def _share(value: float) -> str:
    return "–" if value != value else percent(value)


def _points(value: float) -> str:
    return "–" if value != value else points(value)


def _p(value: float) -> str:
    return "–" if value != value else p_word(value)


def _plain_span(low: float, high: float) -> str:
    return f"{low:.2f} to {high:.2f}"


def _plain(value: float) -> str:
    return "–" if value != value else f"{value:.2f}"


def _count(value: float) -> str:
    return "–" if value != value else count(value)
