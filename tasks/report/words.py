"""How figures and groups are written in the report: one way everywhere."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from tasks.core.headline import ALPHA, people, percent, points
from tasks.core.labels import ALL

NO_INTERVAL = "no interval"  # where one person alone stands behind a figure
MODEL_WORDS = {"base": "base model", "finetuned": "fine-tuned model"}


def group_key(where: Mapping[str, str]) -> str:
    """Return a group's key in metrics.json, such as `age_band=child`; `all` for everyone."""
    return ",".join(f"{name}={group}" for name, group in where.items()) or ALL


def model_word(name: str) -> str:
    """Name a model as readers know it."""
    return MODEL_WORDS.get(name, f"model {name}")


def level(confidence: float) -> str:
    """Write a confidence level, as in "95 % interval"."""
    return f"{100 * confidence:g}\u202f%"


def span(low: float, high: float) -> str:
    """Write the interval of a recall in per cent."""
    if low != low or high != high:
        return NO_INTERVAL
    return f"{100 * low:.1f} to {100 * high:.1f}"


def span_points(low: float, high: float) -> str:
    """Write the interval of a difference in percentage points."""
    if low != low or high != high:
        return NO_INTERVAL
    return f"{points(low, signed=True)} to {points(high, signed=True)}"


def figures_of(row: Mapping[str, Any]) -> dict[str, str]:
    """Write a recall with its interval and count."""
    return {
        "n": count(row["n"]),
        "recall": percent(row["recall"]),
        "interval": span(row["ci_low"], row["ci_high"]),
    }


def count(number: float) -> str:
    """Write a count with thin spaces between thousands."""
    return f"{int(number):,}".replace(",", "\u202f")


def group_word(where: Mapping[str, str]) -> str:
    """Name a group by its values, "all pictures" where nothing is selected."""
    plain = ("age_band", "gender")  # whose values speak for themselves
    named = [
        value if name in plain and value != "unknown" else f"{name} {value}".replace("_", " ")
        for name, value in where.items()
        if value != ALL
    ]
    return ", ".join(named) or "all pictures"


def people_word(where: Mapping[str, str]) -> str:
    """Name the people of a group."""
    known = [(name, value) for name, value in where.items() if value != ALL]
    return " and ".join(people(name, value) for name, value in known) or "everyone"


def p_word(p_value: float) -> str:
    """Write a corrected p-value, "not tested" where there is none."""
    if p_value != p_value:
        return "not tested"
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def shown(p_adjusted: float) -> bool:
    """Tell whether a difference could be shown."""
    return bool(p_adjusted < ALPHA)


def listed(names: Sequence[str]) -> str:
    """Join names as in a sentence."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else list(names))


def capital(text: str) -> str:
    """Write the first letter large."""
    return text[:1].upper() + text[1:]


def interval_words(row: Mapping[str, Any], write: Callable[[float, float], str]) -> str:
    """Write a row's interval with its level, as in "95 % interval 41.2 to 49.9"."""
    written = write(row["ci_low"], row["ci_high"])
    named = f"{level(row['confidence'])} interval {written}"
    return written if written == NO_INTERVAL else named


def change_words(row: Mapping[str, Any]) -> str:
    """Write a change with its interval and count, and whether it could be shown."""
    said = "" if shown(row["p_adjusted"]) else ", could not be shown"
    return (
        f"{points(row['change'], signed=True)} points ({interval_words(row, span_points)}, "
        f"n\u00a0=\u00a0{count(row['n'])}{said})"
    )


def tone_of(row: Mapping[str, Any]) -> str:
    """Return how a change is coloured: only where it could be shown."""
    if not shown(row["p_adjusted"]):
        return ""
    return "gain" if row["change"] > 0 else "loss"


def could_have(row: Mapping[str, Any]) -> str:
    """Say how large a difference these pictures could have shown, "" where that is not known."""
    mde = row.get("mde", float("nan"))
    if mde != mde:
        return ""
    least = "none that there can be" if mde >= 1 else f"one of {points(mde)} points"
    return f"the smallest that these pictures could have shown is {least} ({_power(row)})"


def _power(row: Mapping[str, Any]) -> str:
    return f"with {100 * row['power']:g}\u202f% power"


def methods(table: pd.DataFrame) -> list[str]:
    """Say how the figures of a table were made, in the words of its column `method`."""
    if table.empty or "method" not in table:
        return []
    texts = dict.fromkeys(table["method"].astype(str))
    return [f"{capital(text.rstrip('.'))}." for text in texts if text]


def rounded(value: float) -> float | None:
    """Round a figure of metrics.json to six digits; None where there is none."""
    return float(f"{value:.6g}") if value == value else None
