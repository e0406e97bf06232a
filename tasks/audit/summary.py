"""`audit.md`: what an audit of another system's predictions found, and what it cannot tell."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from tasks.audit.figures import shared_words
from tasks.audit.outputs import Unshown
from tasks.core.headline import (
    ALPHA,
    gap_sentence,
    largest_gap,
    no_gap_sentence,
    percent,
    points,
)
from tasks.core.intervals import WILSON_UNKNOWN
from tasks.core.labels import ALL, HELD_OUT, credit_line
from tasks.core.tables import RAW
from tasks.core.text import markdown, markdown_code

NAMELESS = "system"  # where the file names no model
Tables = Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class Untold:
    """What a file does not tell.

    Attributes
    ----------
    absent
        Columns that would tell more.
    unanswered
        Model to how many pictures it gave no answer for; models that gave all are not in it.
    unknown_training
        Rows of which it is not known whether the system was trained on the picture.
    unused
        Columns of the file that nothing is made of.
    """

    absent: Sequence[str]
    unanswered: Mapping[str, int]
    unknown_training: int
    unused: Sequence[str]


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
_NOBODY = (
    "- Who is in the pictures is not known, so that each counts as a person of its own: where one "
    "person has several, these intervals are too narrow and gaps are shown too easily."
)
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


def summary_page(
    tables: Tables,
    name: str,
    by: Sequence[str],
    pair: tuple[str, str] | None,
    why: Unshown,
    untold: Untold,
    notes: Sequence[str],
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
    pair
        The models that were compared picture by picture, if any.
    why
        Why no models were compared, or a model's calibration is not told.
    untold
        What the file does not tell.
    notes
        How many rows were audited, and how the file was read.
    figures
        File names of the figures.
    """
    groups = tables["groups"]
    lines = [f"# Audit of {markdown(name)}", ""]
    credit = credit_line(groups["dataset"])
    lines += [f"**{credit}**", ""] if credit else []
    for model in dict.fromkeys(groups["model"]):
        protocol = _protocol_of(groups, model)
        lines += [f"## {markdown(model)}", "", *_only_seen(groups, protocol)]
        lines += _findings(tables, model, protocol)
        lines += [_NOBODY, ""] if "subject_id" in untold.absent else [""]
        lines += [*_recall_lines(groups, model, protocol), ""]
    if groups["model"].nunique() > 1:
        lines += [*_change(tables["before_after"], pair, why.change), ""]
    unsaid = [*_cannot(tables, untold, by)]
    if groups["model"].nunique() == 1:
        unsaid.append(
            f"- no two models are compared (`before_after.csv` is empty): {markdown(why.change)}"
        )
    if "p_<emotion>" not in untold.absent:
        unsaid += [
            f"- {markdown(m)}: no calibration, since {reason}"
            for m, reason in why.calibration.items()
        ]
    lines += ["## What cannot be told from this file", "", *(unsaid or ["- nothing is missing"])]
    lines += ["", "## How the file was read", "", *(f"- {markdown(note)}" for note in notes)]
    lines += _how_and_where(tables)
    lines += [f"![{figure.split('.')[0]}]({figure})" for figure in figures]
    return "\n".join(lines) + "\n"


def _protocol_of(groups: pd.DataFrame, model: str) -> str:
    """Return `held_out` where a model has pictures that it was not trained on, else `all`."""
    own = groups["protocol"][groups["model"] == model]
    return HELD_OUT if (own == HELD_OUT).any() else ALL


def _only_seen(groups: pd.DataFrame, protocol: str) -> Iterator[str]:
    """Warn of a model that was trained on every picture, beside one that was not."""
    if protocol == ALL and (groups["protocol"] == HELD_OUT).any():
        yield (
            "- This model was trained on every picture of the file: its figures are on pictures "
            "that it knows, and cannot be compared with those of a model that does not."
        )


def _how_and_where(tables: Tables) -> list[str]:
    """Say how the intervals were made, and what is in which table."""
    return [
        "",
        "## How the intervals were made",
        "",
        "Recall is the share of a label's pictures that are read as it; over all emotions, the "
        "share of all pictures that are read as they are labelled.",
        "",
        *(f"- {method}" for method in dict.fromkeys(tables["groups"]["method"])),
        "",
        "## Tables",
        "",
        *(f"- `{table}.csv`: {_HOLDS[table]}" for table in tables if len(tables[table])),
        "",
    ]


def _findings(tables: Tables, model: str, protocol: str) -> Iterator[str]:
    """Say the largest gaps, what becomes of them at the same mix, and where none is shown."""
    gaps = tables["gaps"]
    found = [largest_gap(gaps, model, single, protocol) for single in (False, True)]
    name = f"the {model}" if model == NAMELESS else f"the model {markdown(model)}"
    shown = [gap for gap in found if gap is not None]
    for gap in shown:
        yield f"- {gap_sentence(_escaped(gap), name)}"
        yield from _standardised(tables["standardised"], gap)
    own = gaps[(gaps["model"] == model) & (gaps["protocol"] == protocol)]
    found_in = set(own["dimension"][own["enough_n"].astype(bool) & (own["p_adjusted"] < ALPHA)])
    if own.empty:
        yield f"- {no_gap_sentence(gaps, model, protocol)}"
    for dimension in dict.fromkeys(own["dimension"]):
        if dimension not in found_in:
            escaped = gaps.assign(dimension=gaps["dimension"].map(markdown))
            yield f"- {no_gap_sentence(escaped, model, protocol, markdown(dimension))}"


def _escaped(row: pd.Series) -> pd.Series:
    """Return a row of `gaps.csv` whose names are taken as they are by Markdown."""
    names = ("emotion", "dataset", "dimension", "group_a", "group_b")
    return pd.Series({**row, **{name: markdown(row[name]) for name in names}})


def _change(table: pd.DataFrame, pair: tuple[str, str] | None, why: str) -> Iterator[str]:
    """Say what changes over all pictures from one model to the other, or why it is not told."""
    if pair is None or table.empty:
        yield "## One model against another"
        yield ""
        yield f"- No two models are compared (`before_after.csv` is empty): {markdown(why)}."
        return
    row = table.iloc[0]  # all pictures
    yield f"## {markdown(pair[1])} against {markdown(pair[0])}"
    yield ""
    yield (
        f"- {shared_words(table).capitalize()}, recall goes from {percent(row['recall_base'])} to "
        f"{percent(row['recall_finetuned'])} of {row['n']} pictures: a change of "
        f"{points(row['change'], signed=True)} percentage points "
        f"({100 * row['confidence']:g}\u202f% interval {points(row['ci_low'], signed=True)} to "
        f"{points(row['ci_high'], signed=True)}; {row['gained']} gained, {row['lost']} lost)."
    )


def _standardised(table: pd.DataFrame, gap: pd.Series) -> Iterator[str]:
    """Say a gap again with the same mix of other columns on both sides."""
    for name in ("model", "protocol", "dataset", "dimension", "emotion"):
        table = table[table[name] == gap[name]]
    for row in table[table["standardised_to"] != RAW].itertuples():
        sign = 1 if (row.group_a, row.group_b) == (gap["group_a"], gap["group_b"]) else -1
        limits = sorted((sign * row.ci_low, sign * row.ci_high))
        sizes = (row.n_a, row.n_b)[::sign]
        if {row.group_a, row.group_b} == {gap["group_a"], gap["group_b"]} and row.gap == row.gap:
            yield (
                f"  - with the same mix of {markdown(row.standardised_to)} on both sides: "
                f"{points(-sign * row.gap)} points ({100 * row.confidence:g}\u202f% interval "
                f"{points(-limits[1])} to {points(-limits[0])}; n = {sizes[0]} and {sizes[1]})"
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
        people = "not known" if row.method == WILSON_UNKNOWN else row.subjects
        lines.append(
            f"| {markdown(row.age_band)} | {markdown(row.gender)} | {row.emotion} | {row.n} | "
            f"{people} | "
            f"{row.correct} | {percent(row.recall)} | {100 * row.ci_low:.1f} to "
            f"{100 * row.ci_high:.1f} |"
        )
    return lines


def _cannot(tables: Tables, untold: Untold, by: Sequence[str]) -> Iterator[str]:
    """Say what is left out, and what is not told for lack of a column."""
    left_out = tables["counts"].query("split == 'all'").groupby("model")["left_out"].max()
    for model, count in left_out.items():
        silent, name = untold.unanswered.get(str(model), 0), markdown(model)
        if silent:
            yield f"- {name}: {silent} pictures left out, as it gave no answer (`y_pred` is empty)"
        if count > silent:
            yield f"- {name}: {count - silent} pictures left out, as the system lacks their label"
    if untold.unknown_training:
        yield (
            f"- `seen_in_training` is empty in {untold.unknown_training} rows: these are taken as "
            "seen, so that they do not count as held out"
        )
    several = tables["groups"]["model"].nunique() > 1
    for name in untold.absent:
        if name in _CANNOT and (name != "image_id" or several):
            yield f"- no column `{name}`: {_CANNOT[name]}"
    explaining = [f"`{name}`" for name in untold.absent if name not in _CANNOT]
    if explaining:
        yield f"- no column {', '.join(explaining)}: whether these explain a gap"
    if untold.unused:
        unused = ", ".join(markdown_code(name) for name in untold.unused)
        yield (
            f"- column {unused}: not used under this name "
            "(`affectgap audit --help` lists the names; `--by COLUMN` compares the groups of any)"
        )
    if not by:
        yield "- no column of groups: whether any group is read less well than another"
