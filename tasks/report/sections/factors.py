"""The section on factors: raw gaps, standardized gaps and odds ratios."""

from typing import Any

import pandas as pd

from tasks.core.gap_sentences import percent, points, uncorrected_sentence
from tasks.core.labels import ALL
from tasks.core.paths import MODELS
from tasks.core.tables import NO_MODEL, RAW
from tasks.report.html.components import Block, Cell, Table, plain
from tasks.report.html.formatting import (
    capital,
    confidence_text,
    count,
    group_name,
    interval_words,
    is_significant,
    join_names,
    methods,
    model_name,
    p_value_text,
    people_phrase,
    points_interval,
    rounded,
)
from tasks.report.inputs import Inputs

BASE = MODELS[0]
_TABLES = ("standardized", "factors")


def factors_section(inputs: Inputs) -> Block:
    """Return gaps and odds ratios; those of other models than the base are collapsed."""
    standardized, factors = (_held_out_rows(inputs.further[name]) for name in _TABLES)
    if standardized.empty and factors.empty:
        return Block(missing="No gap was standardized: no two groups have held-out pictures.")
    tables = [_gaps(standardized, BASE)] if _has(standardized, BASE) else []
    tables += [_odds(factors, BASE)] if _has(factors, BASE) else []
    collapsed = []
    for name in MODELS[1:]:
        if _has(standardized, name):
            collapsed.append(
                (f"Standardized gaps of the {model_name(name)}", _gaps(standardized, name))
            )
        if _has(factors, name):
            collapsed.append((f"Odds ratios of the {model_name(name)}", _odds(factors, name)))
    return Block(
        sentences=[
            *standardized_gap_sentences(inputs),
            *_odds_words(factors, inputs.by),
            *_confounded_words(inputs),
            *_left_out_words(factors),
        ],
        tables=tables,
        collapsed=collapsed,
    )


def standardized_gap_sentences(inputs: Inputs) -> list[str]:
    """Describe each dimension's largest raw gap and what is left of it at a common mix."""
    rows = _held_out_rows(inputs.further["standardized"])
    if rows.empty:
        return []
    sentences = []
    for dimension in inputs.by:
        pair = _largest_pair(inputs, rows, dimension)
        if pair is None:
            continue
        raw = pair[pair["standardized_to"] == RAW].iloc[0]
        mixed = pair[(pair["standardized_to"] != RAW) & pair["gap"].notna()]
        a, b = (people_phrase({dimension: raw[f"group_{side}"]}) for side in "ab")
        text = f"{capital(a)} against {b}, base model: raw {_gap_words(raw)}"
        parts = [f"at the same mix of {_mix(row)} {_gap_words(row)}" for row in _named_mixes(mixed)]
        sentences.append(
            f"{text}; {join_names(parts)}." if parts else f"{text}; no mix is common to both."
        )
    return sentences


def standardized_gap_metrics(inputs: Inputs) -> list[dict[str, Any]]:
    """Return the largest raw gaps and their standardized gaps for metrics.json."""
    rows = _held_out_rows(inputs.further["standardized"])
    metrics = []
    for dimension in inputs.by if len(rows) else []:
        pair = _largest_pair(inputs, rows, dimension)
        for _, row in pair.iterrows() if pair is not None else ():
            metrics.append(
                {
                    **{key: row[key] for key in ("dimension", "group_a", "group_b")},
                    "standardized_to": row["standardized_to"],
                    **{key: rounded(row[key]) for key in ("gap", "ci_low", "ci_high")},
                    **{key: _integer(row[key]) for key in ("n_a", "n_b")},
                }
            )
    return metrics


def _largest_pair(inputs: Inputs, rows: pd.DataFrame, dimension: str) -> pd.DataFrame | None:
    """Return all mixes of the tested pair with the base model's largest raw gap."""
    mixes = _pooled(rows, dimension)
    tested = _pooled(inputs.gaps[inputs.gaps["protocol"] == "held_out"], dimension)
    tested = tested[tested["enough_n"].astype(bool)]
    mixes = mixes.merge(tested[["group_a", "group_b"]], on=["group_a", "group_b"])
    raw = mixes[(mixes["standardized_to"] == RAW) & mixes["gap"].notna()]
    if raw.empty:
        return None
    largest = raw.iloc[int(raw["gap"].abs().argmax())]
    pair = (mixes["group_a"] == largest["group_a"]) & (mixes["group_b"] == largest["group_b"])
    return mixes[pair]


def _pooled(table: pd.DataFrame, dimension: str) -> pd.DataFrame:
    """Return the base model's comparisons along a dimension, pooled over emotions and data sets."""
    mask = (table["model"] == BASE) & (table["dimension"] == dimension)
    return table[mask & (table["emotion"] == ALL) & (table["dataset"] == ALL)]


def _named_mixes(mixed: pd.DataFrame) -> list[pd.Series]:
    """Return the mixes that a sentence names: that of emotion, and that of all columns."""
    joint = mixed[mixed["standardized_to"].str.contains(", ")]
    emotion = mixed[mixed["standardized_to"] == "emotion"]
    rows = pd.concat([emotion, joint.iloc[-1:]])
    rows = mixed.iloc[:1] if rows.empty else rows
    return [row for _, row in rows.iterrows()]


def _mix(row: pd.Series) -> str:
    return join_names([name.replace("_", " ") for name in str(row["standardized_to"]).split(", ")])


def _gap_words(row: pd.Series) -> str:
    n = f"n\u00a0=\u00a0{count(row['n_a'])} and {count(row['n_b'])}"
    return f"{points(row['gap'], signed=True)} points ({interval_words(row, points_interval)}, {n})"


def _odds_words(factors: pd.DataFrame, by: list[str]) -> list[str]:
    """Describe which levels differ with all factors at once, for the base model."""
    rows = factors[(factors["model"] == BASE)] if len(factors) else factors
    if rows.empty:
        return []
    fitted = rows[rows["odds_ratio"].notna()]
    if fitted.empty:
        return [f"No model of all factors could be fitted: {_reasons(rows)}."]
    significant = [row for _, row in fitted.iterrows() if is_significant(row["p_adjusted"])]
    if not significant:
        return [
            f"With all factors in one model, none of {len(fitted)} odds ratios could be shown to "
            "differ from 1; the table has their intervals."
            f"{uncorrected_sentence(fitted, 'odds ratio', 1)}"
        ]
    compared = [_odds_phrase(row) for row in significant if row["factor"] in by]
    others = _other_levels([row for row in significant if row["factor"] not in by])
    text = "With all factors in one model, the odds of a right answer differ for "
    if compared:
        text += "; ".join(compared) + (f"; and for {join_names(others)}" if others else "")
    else:
        text += (
            f"{join_names(others)}; no difference between groups that are compared could be shown"
        )
    return [f"{text}. This describes these pictures; it proves no cause."]


def _odds_phrase(row: pd.Series) -> str:
    interval = f"{_ratio(row['ci_low'])} to {_ratio(row['ci_high'])}"
    return (
        f"{_level_words(row)} (odds ratio {_ratio(row['odds_ratio'])}, "
        f"{confidence_text(row['confidence'])} interval {interval}, "
        f"n\u00a0=\u00a0{count(row['n'])})"
    )


def _other_levels(rows: list[pd.Series]) -> list[str]:
    by_factor: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        key = (str(row["factor"]), str(row["reference"]))
        by_factor.setdefault(key, []).append(str(row["level"]))
    return [
        f"{factor.replace('_', ' ')} ({', '.join(levels)}{f' against {base}' if base else ''})"
        for (factor, base), levels in by_factor.items()
    ]


def _level_words(row: pd.Series) -> str:
    against = f" against {row['reference']}" if row["reference"] else ""
    return f"{str(row['factor']).replace('_', ' ')} {row['level']}{against}"


def _ratio(value: float) -> str:
    """Format an odds ratio with two significant digits."""
    return f"{value:#.2g}".rstrip(".") if value < 100 else f"{value:.0f}"


def _confounded_words(inputs: Inputs) -> list[str]:
    """Name the groups that no data set has both of, so that group and data set are confounded."""
    gaps = inputs.gaps
    sentences = []
    for dimension in inputs.by:
        rows = _pooled(gaps[gaps["protocol"] == "held_out"], dimension)
        rows = rows[rows["datasets_with_both"] == ""]
        if rows.empty:
            continue
        pairs = [
            f"{people_phrase({dimension: row['group_a']})} and "
            f"{people_phrase({dimension: row['group_b']})}"
            for _, row in rows.iterrows()
        ]
        word = dimension.replace("_", " ")
        sentences.append(
            f"No data set holds both {', nor both '.join(pairs)}: {word} and data set cannot be "
            "told apart there. A raw or standardized gap and an odds ratio may be one between data "
            f"sets (camera, pose, instructions) as much as one by {word}."
        )
    return sentences


def _left_out_words(factors: pd.DataFrame) -> list[str]:
    """Name the factors that are in no model, and why."""
    if factors.empty:
        return []
    unfitted = factors["odds_ratio"].isna() & (factors["factor"] != NO_MODEL)
    omitted = factors[(factors["model"] == BASE) & unfitted]
    if omitted.empty:
        return []
    names = [
        f"{' '.join([row.factor.replace('_', ' '), row.level]).strip()} ({row.note})"
        for row in omitted.itertuples()
    ]
    return [f"Left out of that model: {'; '.join(names)}."]


def _reasons(rows: pd.DataFrame) -> str:
    return "; ".join(dict.fromkeys(note for note in rows["note"] if note)) or "no reason is given"


def _gaps(rows: pd.DataFrame, model: str) -> Table:
    gaps = rows[(rows["model"] == model) & (rows["emotion"] == ALL) & (rows["dataset"] == ALL)]
    head = ["a", "b", "same mix of", "n of a", "n of b", "recall of a", "recall of b"]
    return Table(
        caption=f"Gaps of the {model_name(model)} over all emotions, raw and at a common mix, on "
        "held-out pictures. In brackets: the share of the group's pictures in strata that both "
        "groups have.",
        head=[*head, "gap, points"],
        rows=[_gap_cells(row) for _, row in gaps.iterrows()],
        text_columns=["b", "same mix of"],
        methods=methods(gaps),
    )


def _gap_cells(row: pd.Series) -> list[Cell]:
    raw = row["standardized_to"] == RAW
    names = [group_name({row["dimension"]: row[f"group_{side}"]}) for side in "ab"]
    mix = "raw" if raw else _mix(row)
    if row["gap"] != row["gap"]:
        return plain(*names, mix, "0", "0", "–", "–", "nothing in common")
    shares = [f"({percent(row[f'share_{side}'])})" if not raw else "" for side in "ab"]
    return [
        *plain(*names, mix),
        Cell(count(row["n_a"]), shares[0]),
        Cell(count(row["n_b"]), shares[1]),
        *plain(percent(row["recall_a"]), percent(row["recall_b"])),
        Cell(points(row["gap"], signed=True), points_interval(row["ci_low"], row["ci_high"])),
    ]


def _odds(rows: pd.DataFrame, model: str) -> Table:
    ratios = rows[rows["model"] == model]
    return Table(
        caption=f"Odds of a right answer of the {model_name(model)}, held-out pictures, with all "
        "factors in one model: below 1, fewer right answers than the reference (for a number: per "
        "standard deviation more). In red: below 1, in green: above 1, where that could be shown.",
        head=["factor", "level", "against", "n", "people", "odds ratio", "p", "note"],
        rows=[_odds_cells(row) for _, row in ratios.iterrows()],
        text_columns=["level", "against", "note"],
        wrapped_columns=["note"],
        methods=methods(ratios),
    )


def _odds_cells(row: pd.Series) -> list[Cell]:
    n, people = ("" if row[key] != row[key] else count(row[key]) for key in ("n", "subjects"))
    names = plain(str(row["factor"]).replace("_", " "), str(row["level"]), str(row["reference"]))
    if row["odds_ratio"] != row["odds_ratio"]:
        return [*names, *plain(n, people, "–", ""), Cell(str(row["note"]))]
    tone = ""
    if is_significant(row["p_adjusted"]):
        tone = "bad" if row["odds_ratio"] < 1 else "gain"
    interval = f"{_ratio(row['ci_low'])} to {_ratio(row['ci_high'])}"
    ratio = Cell(_ratio(row["odds_ratio"]), interval, tone)
    return [
        *names,
        *plain(n, people),
        ratio,
        Cell(p_value_text(row["p_adjusted"])),
        Cell(row["note"]),
    ]


def _held_out_rows(table: pd.DataFrame) -> pd.DataFrame:
    return table if table.empty else table[table["protocol"] == "held_out"]


def _has(table: pd.DataFrame, model: str) -> bool:
    return bool(len(table)) and bool((table["model"] == model).any())


def _integer(value: float) -> int:
    return int(value) if value == value else 0
