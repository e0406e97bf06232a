"""Formats numbers and groups, the same way everywhere in the report."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from tasks.core.gap_sentences import ALPHA, not_shown, people, points
from tasks.core.labels import ALL

NO_INTERVAL = "no interval"  # a number from a single person
MODEL_WORDS = {"base": "base model", "finetuned": "fine-tuned model"}


def group_key(group: Mapping[str, str]) -> str:
    """Return a group's key in metrics.json, such as `age_band=child`; `all` for everyone."""
    return ",".join(f"{name}={value}" for name, value in group.items()) or ALL


def model_name(name: str) -> str:
    """Return a model's name for readers."""
    return MODEL_WORDS.get(name, f"model {name}")


def confidence_text(confidence: float) -> str:
    """Return a confidence level, as in "95 % interval"."""
    return f"{100 * confidence:g}\u202f%"


def percent_interval(low: float, high: float) -> str:
    """Return the interval of a recall in percent."""
    if low != low or high != high:
        return NO_INTERVAL
    return f"{100 * low:.1f} to {100 * high:.1f}"


def points_interval(low: float, high: float) -> str:
    """Return the interval of a difference in percentage points."""
    if low != low or high != high:
        return NO_INTERVAL
    return f"{points(low, signed=True)} to {points(high, signed=True)}"


def count(number: float) -> str:
    """Return a count with thin spaces between thousands."""
    return f"{int(number):,}".replace(",", "\u202f")


def optional(value: Any, write: Callable[[Any], str], missing: str = "–") -> str:
    """Format a value, or return `missing` for NaN."""
    return missing if value != value else write(value)


def group_name(group: Mapping[str, str]) -> str:
    """Name a group by its values; "all images" if it has none."""
    plain = ("age_band", "gender")  # their values are clear without the column's name
    named = [
        value if name in plain and value != "unknown" else f"{name} {value}".replace("_", " ")
        for name, value in group.items()
        if value != ALL
    ]
    return ", ".join(named) or "all pictures"


def people_phrase(group: Mapping[str, str]) -> str:
    """Name the people of a group."""
    known = [(name, value) for name, value in group.items() if value != ALL]
    return " and ".join(people(name, value) for name, value in known) or "everyone"


def p_value_text(p_value: float) -> str:
    """Return a corrected p-value, "not tested" if there is none."""
    if p_value != p_value:
        return "not tested"
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def is_significant(p_adjusted: float) -> bool:
    """Return whether a difference is statistically significant."""
    return bool(p_adjusted < ALPHA)


def join_names(names: Sequence[str]) -> str:
    """Join names as in a sentence."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else list(names))


def capital(text: str) -> str:
    """Return the text with a capital first letter."""
    return text[:1].upper() + text[1:]


def interval_words(row: Mapping[str, Any], write: Callable[[float, float], str]) -> str:
    """Return a row's interval with its level, as in "95 % interval 41.2 to 49.9"."""
    interval = write(row["ci_low"], row["ci_high"])
    labeled = f"{confidence_text(row['confidence'])} interval {interval}"
    return interval if interval == NO_INTERVAL else labeled


def change_phrase(row: Mapping[str, Any]) -> str:
    """Return a change with its interval, count and verdict."""
    verdict = "" if is_significant(row["p_adjusted"]) else f", {not_shown(row)}"
    return (
        f"{points(row['change'], signed=True)} points ({interval_words(row, points_interval)}, "
        f"n\u00a0=\u00a0{count(row['n'])}{verdict})"
    )


def tone_of(row: Mapping[str, Any]) -> str:
    """Return the color of a change; only significant changes have one."""
    if not is_significant(row["p_adjusted"]):
        return ""
    return "gain" if row["change"] > 0 else "loss"


def mde_phrase(row: Mapping[str, Any]) -> str:
    """Describe the smallest detectable difference; "" if it is unknown."""
    mde = row.get("mde", float("nan"))
    if mde != mde:
        return ""
    smallest = "none that there can be" if mde >= 1 else f"one of {points(mde)} points"
    return f"the smallest that these pictures could have shown is {smallest} ({_power(row)})"


def _power(row: Mapping[str, Any]) -> str:
    return f"with {100 * row['power']:g}\u202f% power"


def methods(table: pd.DataFrame) -> list[str]:
    """Return how the numbers of a table were computed, from its column `method`."""
    if table.empty or "method" not in table:
        return []
    texts = dict.fromkeys(table["method"].astype(str))
    return [f"{capital(text.rstrip('.'))}." for text in texts if text]


def rounded(value: float) -> float | None:
    """Round to six significant digits for metrics.json; None for NaN."""
    return float(f"{value:.6g}") if value == value else None
