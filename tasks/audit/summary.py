"""`audit.md`: what an audit of another system's predictions found, and what it cannot tell."""

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from tasks.core.headline import gap_sentence, largest_gap, no_gap_sentence, percent, points
from tasks.core.labels import ALL, credit_line

NAMELESS = "system"  # where the file names no model
Tables = Mapping[str, pd.DataFrame]

_CANNOT = {
    "age_band": "recall by age (a column `age_years` would do as well)",
    "gender": "recall by gender",
    "subject_id": "which pictures show the same person, so every picture is taken as a person of "
    "its own; intervals are too narrow where one person has several",
    "seen_in_training": "whether the system was trained on these pictures (rows are under the "
    "protocol `all`)",
    "image_id": "which answers belong to the same picture, so that two models of one file could "
    "be compared picture by picture",
    "p_<emotion>": "which labels the system can answer (it is taken to have all that occur), and "
    "whether it is as sure as it is right (calibration)",
}
_HOLDS = {
    "counts": "pictures and people of every group",
    "groups": "recall of every group, with intervals",
    "gaps": "every pair of groups: gap, interval, p, and the smallest gap that could have been "
    "shown",
    "before_after": "two models on the same pictures",
    "confusion": "what each emotion was read as",
    "factors": "what goes with right answers: odds ratios",
    "standardised": "gaps as they would be with the same mix on both sides",
    "fairness": "worst and best group, difference, ratio, equalised odds",
    "calibration": "whether it is as sure as it is right, by group",
    "confusion_gaps": "confusions that one group has more often than another",
}


def markdown(
    tables: Tables,
    name: str,
    by: Sequence[str],
    absent: Sequence[str],
    uncalibrated: Mapping[str, str],
    figures: Sequence[str],
) -> str:
    """Write the summary.

    Parameters
    ----------
    tables
        What `audit_predictions` returned.
    name
        What was audited.
    by
        The dimensions that were compared.
    absent
        Columns that would tell more.
    uncalibrated
        Model to why its probabilities say nothing of calibration.
    figures
        File names of the figures.
    """
    groups = tables["groups"]
    protocol = "held_out" if (groups["protocol"] == "held_out").any() else ALL
    lines = [f"# Audit of {name}", ""]
    credit = credit_line(groups["dataset"])
    lines += [f"**{credit}**", ""] if credit else []
    for model in dict.fromkeys(groups["model"]):
        lines += [f"## {model}", "", *_findings(tables, model, protocol), ""]
        lines += [*_recall_lines(groups, model, protocol), ""]
    unsaid = [*_cannot(tables, absent, by)]
    unsaid += [f"- {model}: no calibration, since {why}" for model, why in uncalibrated.items()]
    lines += ["## What cannot be told from this file", "", *(unsaid or ["- nothing is missing"])]
    lines += [
        "",
        "## How the intervals were made",
        "",
        "Recall is what studies of recognisers often call accuracy.",
        "",
        *(f"- {method}" for method in dict.fromkeys(groups["method"])),
        "",
        "## Tables",
        "",
        *(f"- `{table}.csv`: {_HOLDS[table]}" for table in tables if len(tables[table])),
        "",
    ]
    lines += [f"![{figure.split('.')[0]}]({figure})" for figure in figures]
    return "\n".join(lines) + "\n"


def _findings(tables: Tables, model: str, protocol: str) -> Iterator[str]:
    """Say the largest gaps and what becomes of them with the same mix on both sides."""
    gaps = tables["gaps"]
    found = [largest_gap(gaps, model, single, protocol) for single in (False, True)]
    name = f"the {model}" if model == NAMELESS else f"the model {model}"
    shown = [gap for gap in found if gap is not None]
    for gap in shown:
        yield f"- {gap_sentence(gap, name)}"
        yield from _standardised(tables["standardised"], gap)
    if not shown:
        yield f"- {no_gap_sentence(gaps, model, protocol)}"


def _standardised(table: pd.DataFrame, gap: pd.Series) -> Iterator[str]:
    """Say a gap again with the same mix of other columns on both sides."""
    for name in ("model", "protocol", "dataset", "dimension", "emotion"):
        table = table[table[name] == gap[name]]
    for row in table[table["standardised_to"].str.startswith("nothing").eq(False)].itertuples():
        sign = 1 if (row.group_a, row.group_b) == (gap["group_a"], gap["group_b"]) else -1
        limits = sorted((sign * row.ci_low, sign * row.ci_high))
        if {row.group_a, row.group_b} == {gap["group_a"], gap["group_b"]} and row.gap == row.gap:
            yield (
                f"  - with the same mix of {row.standardised_to} on both sides: "
                f"{points(-sign * row.gap)} points ({points(-limits[1])} to {points(-limits[0])})"
            )


def _recall_lines(groups: pd.DataFrame, model: str, protocol: str) -> list[str]:
    """Make a Markdown table of recall by age, gender and emotion; `groups.csv` has the rest."""
    rows = groups[(groups["model"] == model) & (groups["protocol"] == protocol)]
    further = list(groups.columns[11 : groups.columns.get_loc("subjects")])
    rows = rows[(rows[["dataset", *further]] == ALL).all(axis=1)]
    level = f"{100 * rows['confidence'].iloc[0]:g}\u202f% interval"
    lines = [f"| age band | gender | emotion | n | people | correct | recall | {level} |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for row in rows.itertuples():
        lines.append(
            f"| {row.age_band} | {row.gender} | {row.emotion} | {row.n} | {row.subjects} | "
            f"{row.correct} | {percent(row.recall)} | {100 * row.ci_low:.1f} to "
            f"{100 * row.ci_high:.1f} |"
        )
    return lines


def _cannot(tables: Tables, absent: Sequence[str], by: Sequence[str]) -> Iterator[str]:
    """Say what is left out, and what is not told for lack of a column."""
    left_out = tables["counts"].query("split == 'all'").groupby("model")["left_out"].max()
    for model, count in left_out.items():
        if count:
            yield f"- {model}: {count} pictures left out, as the system lacks their label"
    several = tables["groups"]["model"].nunique() > 1
    for name in absent:
        if name in _CANNOT and (name != "image_id" or several):
            yield f"- no column `{name}`: {_CANNOT[name]}"
    explaining = [f"`{name}`" for name in absent if name not in _CANNOT]
    if explaining:
        yield f"- no column {', '.join(explaining)}: whether these explain a gap"
    if not by:
        yield "- no column of groups: whether any group is read less well than another"
