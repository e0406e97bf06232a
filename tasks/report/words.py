"""How figures and groups are written in the report: one way everywhere."""

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.core.headline import ALPHA, people, percent, points
from tasks.core.labels import ALL

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
    return f"{100 * low:.1f} to {100 * high:.1f}"


def span_points(low: float, high: float) -> str:
    """Write the interval of a difference in percentage points."""
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


def shown(p_holm: float) -> bool:
    """Tell whether a difference could be shown."""
    return bool(p_holm < ALPHA)


def listed(names: Sequence[str]) -> str:
    """Join names as in a sentence."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else list(names))
