"""Which factor is it? The raw gap beside gaps at a common mix, and the odds of a right answer."""

from typing import Any

import pandas as pd

from tasks.core.headline import percent, points
from tasks.core.labels import ALL
from tasks.core.paths import MODELS
from tasks.core.tables import NO_MODEL, RAW
from tasks.report.block import Block, Cell, Table, words_of
from tasks.report.inputs import Inputs
from tasks.report.words import (
    capital,
    count,
    group_word,
    interval_words,
    level,
    listed,
    methods,
    model_word,
    p_word,
    people_word,
    rounded,
    shown,
    span_points,
)

BASE = MODELS[0]
_TABLES = ("standardised", "factors")


def factors_section(inputs: Inputs) -> Block:
    """Return raw and standardised gaps and odds ratios of the base model; others behind lines."""
    standardised, factors = (_held_out(inputs.further[name]) for name in _TABLES)
    if standardised.empty and factors.empty:
        return Block(missing="No gap was standardised: no two groups have held-out pictures.")
    tables = [_gaps(standardised, BASE)] if _has(standardised, BASE) else []
    tables += [_odds(factors, BASE)] if _has(factors, BASE) else []
    more = []
    for name in MODELS[1:]:
        if _has(standardised, name):
            more.append((f"Standardised gaps of the {model_word(name)}", _gaps(standardised, name)))
        if _has(factors, name):
            more.append((f"Odds ratios of the {model_word(name)}", _odds(factors, name)))
    return Block(
        said=[
            *standardised_words(inputs),
            *_odds_words(factors, inputs.by),
            *_apart_words(inputs),
            *_left_out_words(factors),
        ],
        tables=tables,
        more=more,
    )


def standardised_words(inputs: Inputs) -> list[str]:
    """Say the largest raw gap of each dimension beside what is left of it at a common mix."""
    rows = _held_out(inputs.further["standardised"])
    if rows.empty:
        return []
    said = []
    for dimension in inputs.by:
        pair = _largest_pair(inputs, rows, dimension)
        if pair is None:
            continue
        raw = pair[pair["standardised_to"] == RAW].iloc[0]
        mixed = pair[(pair["standardised_to"] != RAW) & pair["gap"].notna()]
        a, b = (people_word({dimension: raw[f"group_{side}"]}) for side in "ab")
        text = f"{capital(a)} against {b}, base model: raw {_gap_words(raw)}"
        parts = [f"at the same mix of {_mix(row)} {_gap_words(row)}" for row in _told(mixed)]
        said.append(f"{text}; {listed(parts)}." if parts else f"{text}; no mix is common to both.")
    return said


def standardised_metrics(inputs: Inputs) -> list[dict[str, Any]]:
    """Return, for metrics.json, the pairs with the largest raw gaps and their standardised gaps."""
    rows = _held_out(inputs.further["standardised"])
    found = []
    for dimension in inputs.by if len(rows) else []:
        pair = _largest_pair(inputs, rows, dimension)
        for _, row in pair.iterrows() if pair is not None else ():
            found.append(
                {
                    **{key: row[key] for key in ("dimension", "group_a", "group_b")},
                    "standardised_to": row["standardised_to"],
                    **{key: rounded(row[key]) for key in ("gap", "ci_low", "ci_high")},
                    **{key: _whole(row[key]) for key in ("n_a", "n_b")},
                }
            )
    return found


def _largest_pair(inputs: Inputs, rows: pd.DataFrame, dimension: str) -> pd.DataFrame | None:
    """Return all mixes of the pair with the largest raw gap of the base model that was tested."""
    own = _pooled(rows, dimension)
    tested = _pooled(inputs.gaps[inputs.gaps["protocol"] == "held_out"], dimension)
    tested = tested[tested["enough_n"].astype(bool)]
    own = own.merge(tested[["group_a", "group_b"]], on=["group_a", "group_b"])
    raw = own[(own["standardised_to"] == RAW) & own["gap"].notna()]
    if raw.empty:
        return None
    first = raw.iloc[int(raw["gap"].abs().argmax())]
    same = (own["group_a"] == first["group_a"]) & (own["group_b"] == first["group_b"])
    return own[same]


def _pooled(table: pd.DataFrame, dimension: str) -> pd.DataFrame:
    """Keep the base model's comparisons along a dimension, over all emotions and data sets."""
    kept = (table["model"] == BASE) & (table["dimension"] == dimension)
    return table[kept & (table["emotion"] == ALL) & (table["dataset"] == ALL)]


def _told(mixed: pd.DataFrame) -> list[pd.Series]:
    """Pick what a sentence can hold: the emotion mix, and that of all columns together."""
    together = mixed[mixed["standardised_to"].str.contains(", ")]
    emotion = mixed[mixed["standardised_to"] == "emotion"]
    picked = pd.concat([emotion, together.iloc[-1:]])
    picked = mixed.iloc[:1] if picked.empty else picked
    return [row for _, row in picked.iterrows()]


def _mix(row: pd.Series) -> str:
    return listed([name.replace("_", " ") for name in str(row["standardised_to"]).split(", ")])


def _gap_words(row: pd.Series) -> str:
    n = f"n\u00a0=\u00a0{count(row['n_a'])} and {count(row['n_b'])}"
    return f"{points(row['gap'], signed=True)} points ({interval_words(row, span_points)}, {n})"


def _odds_words(factors: pd.DataFrame, by: list[str]) -> list[str]:
    """Say which levels differ with all factors at once, for the base model."""
    rows = factors[(factors["model"] == BASE)] if len(factors) else factors
    if rows.empty:
        return []
    found = rows[rows["odds_ratio"].notna()]
    if found.empty:
        return [f"No model of all factors could be fitted: {_reasons(rows)}."]
    told = [row for _, row in found.iterrows() if shown(row["p_adjusted"])]
    if not told:
        return [
            f"With all factors in one model, none of {len(found)} odds ratios could be shown to "
            "differ from 1; the table has their intervals."
        ]
    own = [_odds_phrase(row) for row in told if row["factor"] in by]
    others = _other_levels([row for row in told if row["factor"] not in by])
    said = "With all factors in one model, the odds of a right answer differ for "
    if own:
        said += "; ".join(own) + (f"; and for {listed(others)}" if others else "")
    else:
        said += f"{listed(others)}; no difference between groups that are compared could be shown"
    return [f"{said}. This describes these pictures; it proves no cause."]


def _odds_phrase(row: pd.Series) -> str:
    interval = f"{_ratio(row['ci_low'])} to {_ratio(row['ci_high'])}"
    return (
        f"{_level_words(row)} (odds ratio {_ratio(row['odds_ratio'])}, "
        f"{level(row['confidence'])} interval {interval}, n\u00a0=\u00a0{count(row['n'])})"
    )


def _other_levels(rows: list[pd.Series]) -> list[str]:
    """Name further levels, those of one factor together."""
    by_factor: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        names = (str(row["factor"]), str(row["reference"]))
        by_factor.setdefault(names, []).append(str(row["level"]))
    return [
        f"{factor.replace('_', ' ')} ({', '.join(levels)}{f' against {base}' if base else ''})"
        for (factor, base), levels in by_factor.items()
    ]


def _level_words(row: pd.Series) -> str:
    against = f" against {row['reference']}" if row["reference"] else ""
    return f"{str(row['factor']).replace('_', ' ')} {row['level']}{against}"


def _ratio(value: float) -> str:
    """Write an odds ratio with two digits that tell something."""
    return f"{value:#.2g}".rstrip(".") if value < 100 else f"{value:.0f}"


def _apart_words(inputs: Inputs) -> list[str]:
    """Say which groups no data set holds both of: there, group and data set are one factor."""
    gaps = inputs.gaps
    said = []
    for dimension in inputs.by:
        rows = _pooled(gaps[gaps["protocol"] == "held_out"], dimension)
        rows = rows[rows["shared_datasets"] == ""]
        if rows.empty:
            continue
        pairs = [
            f"{people_word({dimension: row['group_a']})} and "
            f"{people_word({dimension: row['group_b']})}"
            for _, row in rows.iterrows()
        ]
        word = dimension.replace("_", " ")
        said.append(
            f"No data set holds both {', nor both '.join(pairs)}: {word} and data set cannot be "
            "told apart there. A raw or standardised gap and an odds ratio may be one between data "
            f"sets (camera, pose, instructions) as much as one by {word}."
        )
    return said


def _left_out_words(factors: pd.DataFrame) -> list[str]:
    """Say which factors are in no model, and why."""
    if factors.empty:
        return []
    none = factors["odds_ratio"].isna() & (factors["factor"] != NO_MODEL)
    lacking = factors[(factors["model"] == BASE) & none]
    if lacking.empty:
        return []
    names = [
        f"{' '.join([row.factor.replace('_', ' '), row.level]).strip()} ({row.note})"
        for row in lacking.itertuples()
    ]
    return [f"Left out of that model: {'; '.join(names)}."]


def _reasons(rows: pd.DataFrame) -> str:
    return "; ".join(dict.fromkeys(note for note in rows["note"] if note)) or "no reason is told"


def _gaps(rows: pd.DataFrame, model: str) -> Table:
    own = rows[(rows["model"] == model) & (rows["emotion"] == ALL) & (rows["dataset"] == ALL)]
    head = ["a", "b", "same mix of", "n of a", "n of b", "recall of a", "recall of b"]
    return Table(
        caption=f"Gaps of the {model_word(model)} over all emotions, raw and at a common mix, on "
        "held-out pictures. In brackets: which share of the group's pictures is in strata that "
        "both groups have.",
        head=[*head, "gap, points"],
        rows=[_gap_cells(row) for _, row in own.iterrows()],
        words=["b", "same mix of"],
        how=methods(own),
    )


def _gap_cells(row: pd.Series) -> list[Cell]:
    raw = row["standardised_to"] == RAW
    names = [group_word({row["dimension"]: row[f"group_{side}"]}) for side in "ab"]
    mix = "raw" if raw else _mix(row)
    if row["gap"] != row["gap"]:
        return words_of(*names, mix, "0", "0", "–", "–", "nothing in common")
    shares = [f"({percent(row[f'share_{side}'])})" if not raw else "" for side in "ab"]
    return [
        *words_of(*names, mix),
        Cell(count(row["n_a"]), shares[0]),
        Cell(count(row["n_b"]), shares[1]),
        *words_of(percent(row["recall_a"]), percent(row["recall_b"])),
        Cell(points(row["gap"], signed=True), span_points(row["ci_low"], row["ci_high"])),
    ]


def _odds(rows: pd.DataFrame, model: str) -> Table:
    own = rows[rows["model"] == model]
    return Table(
        caption=f"Odds of a right answer of the {model_word(model)}, held-out pictures, with all "
        "factors in one model: below 1, fewer right answers than the reference (for a number: per "
        f"standard deviation more). In red: below 1, in green: above 1, where that could be shown.",
        head=["factor", "level", "against", "n", "people", "odds ratio", "p", "note"],
        rows=[_odds_cells(row) for _, row in own.iterrows()],
        words=["level", "against", "note"],
        wide=["note"],
        how=methods(own),
    )


def _odds_cells(row: pd.Series) -> list[Cell]:
    n, people = ("" if row[key] != row[key] else count(row[key]) for key in ("n", "subjects"))
    names = words_of(str(row["factor"]).replace("_", " "), str(row["level"]), str(row["reference"]))
    if row["odds_ratio"] != row["odds_ratio"]:
        return [*names, *words_of(n, people, "–", ""), Cell(str(row["note"]))]
    tone = ""
    if shown(row["p_adjusted"]):
        tone = "bad" if row["odds_ratio"] < 1 else "gain"
    interval = f"{_ratio(row['ci_low'])} to {_ratio(row['ci_high'])}"
    ratio = Cell(_ratio(row["odds_ratio"]), interval, tone)
    return [*names, *words_of(n, people), ratio, Cell(p_word(row["p_adjusted"])), Cell(row["note"])]


def _held_out(table: pd.DataFrame) -> pd.DataFrame:
    return table if table.empty else table[table["protocol"] == "held_out"]


def _has(table: pd.DataFrame, model: str) -> bool:
    return bool(len(table)) and bool((table["model"] == model).any())


def _whole(value: float) -> int:
    return int(value) if value == value else 0
