"""The Markdown page of a drift report."""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from tasks.core.text import markdown
from tasks.drift.settings import Params

NAMES = {
    "emotion": "pictures labelled",
    "age_band": "age band",
    "gender": "gender as recorded",
    "age_years": "age in years",
    "detector_score": "face detector's score",
    "sharpness": "sharpness of the crop",
    "brightness": "brightness of the crop",
    "confidence": "largest probability of the model in use",
}
_HEAD = "| what | batch | training | effect | interval | pictures | people |"


def not_compared_page(batch: str, why: str) -> list[str]:
    """Return the lines of `reports/drift/<batch>.md` where there is no comparison."""
    return [_title(batch), "", f"It was not compared: {markdown(why)}."]


def drift_page(
    batch: str, compared: pd.DataFrame, params: Params, facts: Sequence[str]
) -> list[str]:
    """Return the lines of `reports/drift/<batch>.md`.

    `compared` is the result of `compare` and may be empty. `facts` are sentences on what was
    compared, and required notices.
    """
    large = compared[compared["large"]] if len(compared) else compared
    lines = [_title(batch), ""]
    lines += [
        *facts,
        "",
        "This is advice: a difference says nothing about whether a batch is bad.",
        "",
    ]
    if compared.empty:
        return lines
    lines += [_summary(large, params), "", _HEAD, "|---|---|---|---|---|---|---|"]
    order = (
        compared["effect"]
        .abs()
        .sort_values(ascending=False, na_position="last", kind="stable")
        .index
    )
    lines += [_line(row) for row in compared.loc[order].itertuples(index=False)]
    level = f"{params.confidence:.0%}"
    lines += [
        "",
        f"Effects: Cohen's h of shares, Cohen's d of means (of sharpness: of its logarithm); "
        f"0.2 is usually called small, 0.5 medium, 0.8 large. {level} intervals, for all rows of "
        f"this page at once, from {params.resamples} draws of people: of batches that do not "
        f"differ, about {1 - params.confidence:.0%} have a row whose interval excludes 0. "
        f"**Bold**: at least {params.large_effect:g}, and the interval does not hold 0. A row that "
        "is not bold may still differ: its interval tells by how much.",
    ]
    return lines


def _title(batch: str) -> str:
    return f"# Batch {batch}: how it differs from the training data"


def _summary(large: pd.DataFrame, params: Params) -> str:
    if large.empty:
        return f"No difference of {params.large_effect:g} or more could be shown."
    ranked = large.loc[large["effect"].abs().sort_values(ascending=False).index]
    sentences = [_sentence(row) for row in ranked.itertuples(index=False)]
    return f"Large differences ({params.confidence:.0%} intervals): {'; '.join(sentences)}."


def _sentence(row: Any) -> str:
    """Describe one difference with its sizes and interval, since the sentence may be quoted."""
    batch = f"{_figure(row, row.batch)} of {row.n_batch} pictures of {row.subjects_batch} people"
    training = f"{row.n_training} pictures of {row.subjects_training} people"
    effect = f"effect {row.effect:+.2f}, {row.ci_low:+.2f} to {row.ci_high:+.2f}"
    return f"{_name(row)} {batch} against {_figure(row, row.training)} of {training} ({effect})"


def _line(row: Any) -> str:
    sizes = f"{row.n_batch} / {row.n_training} | {row.subjects_batch} / {row.subjects_training} |"
    if math.isnan(row.effect):
        return f"| {_name(row)} | – | – | – | {row.note} | {sizes}"
    mark = "**" if row.large else ""
    effect = f"{mark}{row.effect:+.2f}{mark}"
    interval = f"{row.ci_low:+.2f} to {row.ci_high:+.2f}"
    figures = f"{_figure(row, row.batch)} | {_figure(row, row.training)}"
    return f"| {_name(row)} | {figures} | {effect} | {interval} | {sizes}"


def _name(row: Any) -> str:
    return f"{NAMES[row.feature]} {markdown(row.level)}".strip()


def _figure(row: Any, value: float) -> str:
    return f"{value:.1%}" if row.level else f"{value:.3g}"
