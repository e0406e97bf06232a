"""Writes `audit.md`, the summary of an audit of another system's predictions."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tasks.audit.figures.recall import PANELS_AT_MOST, drawn_rows, group_rows, shared_words
from tasks.audit.settings import MANY_COLUMNS
from tasks.audit.write_outputs import MissingReasons, recall_rows
from tasks.core.gap_sentences import (
    could_be_shown,
    gap_sentence,
    intersection_sentence,
    largest_gap,
    no_gap_sentence,
    percent,
    points,
    worst_intersection,
)
from tasks.core.labels import ALL, HELD_OUT, credit_line
from tasks.core.tables import RAW
from tasks.core.text import markdown, markdown_code

NAMELESS = "system"  # where the file names no model
Tables = Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class MissingColumns:
    """Information that a file lacks.

    `absent` are columns that would allow more results, `unused` columns that were not used.
    `unanswered` maps a model to its number of images without an answer. `unknown_training` counts
    rows with unknown `seen_in_training`. `nameless` maps a model to the number of images without a
    subject id and to its number of images; `independent` is whether the user declared these images
    independent.
    """

    absent: Sequence[str]
    unanswered: Mapping[str, int]
    unknown_training: int
    unused: Sequence[str]
    nameless: Mapping[str, tuple[int, int]]
    independent: bool


_CANNOT = {
    "age_band": "recall by age (a column `age_years` would do as well)",
    "gender": "recall by gender",
    "subject_id": "which images show the same person, so no gap can be tested "
    "(`--independent-images` where every image shows another person)",
    "seen_in_training": "whether the system was trained on these pictures (rows are under the "
    "protocol `all`)",
    "image_id": "which answers belong to the same picture, so that two models of one file could "
    "be compared picture by picture",
    "p_<emotion>": "which labels the system can answer (it is taken to have all that occur), and "
    "whether it is as sure as it is right (calibration)",
}
_APART = 0.03  # smallest difference between both kinds of recall that is reported
_HOLDS = {
    "counts": "pictures and people of every group",
    "groups": "recall of every group, with intervals",
    "gaps": "every pair of groups: gap, interval, p, and the smallest gap that could have been "
    "shown",
    "before_after": "two models on the same pictures",
    "confusion": "what each emotion was read as",
    "factors": "what goes with right answers: odds ratios",
    "standardized": "gaps as they would be with the same mix on both sides",
    "fairness": "worst and best group, difference, ratio, equalized odds",
    "calibration": "whether it is as sure as it is right, by group",
    "confusion_gaps": "confusions that one group has more often than another",
    "intersections": "groups of several columns at once, such as boys of an age band: recall, "
    "also shrunken towards what the columns let expect, and the difference from the rest",
    "predictive_values": "how often an answer is right (ppv) or wrong (fdr), by group",
    "sensitivity": "how many wrong labels or wrongly recorded subjects would undo each gap",
}


def summary_page(
    tables: Tables,
    name: str,
    by: Sequence[str],
    pair: tuple[str, str] | None,
    why: MissingReasons,
    untold: MissingColumns,
    notes: Sequence[str],
    figures: Sequence[str],
) -> str:
    """Return the summary as Markdown.

    `tables` is the result of `audit_predictions`, `pair` the models that were compared image by
    image. `notes` are sentences on how many rows were audited and how the file was read.
    """
    groups = tables["groups"]
    lines = [f"# Audit of {markdown(name)}", ""]
    credit = credit_line(groups["dataset"])
    lines += [f"**{credit}**", ""] if credit else []
    for model in dict.fromkeys(groups["model"]):
        protocol = _protocol_of(groups, model)
        lines += [f"## {markdown(model)}", "", *_only_seen(groups, protocol)]
        lines += _findings(tables, model, protocol)
        lines += [*_on_subjects(tables, untold, model, protocol), ""]
        lines += [*_recall_lines(groups, model, protocol), ""]
    if groups["model"].nunique() > 1:
        lines += [*_change(tables["before_after"], pair, why.change), ""]
    unsaid = [*_cannot(tables, untold, by), *_left_out(recall_rows(tables, pair), by)]
    if groups["model"].nunique() == 1:
        unsaid.append(
            f"- no two models are compared (`before_after.csv` is empty): {markdown(why.change)}"
        )
    if "p_<emotion>" not in untold.absent:
        unsaid += [
            f"- {markdown(m)}: no calibration, since {reason}"
            for m, reason in why.calibration.items()
        ]
    lines += ["## What this file does not show", "", *(unsaid or ["- nothing is missing"])]
    lines += ["", "## How the file was read", "", *(f"- {markdown(note)}" for note in notes)]
    lines += _how_and_where(tables)
    lines += [f"![{figure.split('.')[0]}]({figure})" for figure in figures]
    return "\n".join(lines) + "\n"


def _protocol_of(groups: pd.DataFrame, model: str) -> str:
    """Return `held_out` where a model has images that it was not trained on, else `all`."""
    protocols = groups["protocol"][groups["model"] == model]
    return HELD_OUT if (protocols == HELD_OUT).any() else ALL


def _only_seen(groups: pd.DataFrame, protocol: str) -> Iterator[str]:
    """Warn of a model that was trained on every image, beside one that was not."""
    if protocol == ALL and (groups["protocol"] == HELD_OUT).any():
        yield (
            "- This model was trained on every picture of the file: its figures are on pictures "
            "that it knows, and cannot be compared with those of a model that does not."
        )


def _how_and_where(tables: Tables) -> list[str]:
    """Describe the intervals and the tables."""
    return [
        "",
        "## How the intervals were made",
        "",
        "Recall is the share of a label's pictures that are read as it; over all emotions, the "
        "share of all pictures that are read as they are labelled. Every sentence uses this recall "
        "over pictures; `recall_per_subject` in `groups.csv` is the mean of the subjects' own.",
        "",
        *(f"- {method}" for method in dict.fromkeys(tables["groups"]["method"])),
        "",
        "## Tables",
        "",
        *(f"- `{table}.csv`: {_HOLDS[table]}" for table in tables if len(tables[table])),
        "",
    ]


def _findings(tables: Tables, model: str, protocol: str) -> Iterator[str]:
    """Describe the largest gaps and how firm they are, intersections, and where none is shown."""
    gaps = tables["gaps"]
    largest = [largest_gap(gaps, model, single, protocol) for single in (False, True)]
    name = f"the {model}" if model == NAMELESS else f"the model {markdown(model)}"
    significant = [gap for gap in largest if gap is not None]
    for gap in significant:
        yield f"- {gap_sentence(_escaped(gap), name)}"
        yield from _standardized(tables["standardized"], gap)
        yield from _undone(tables["sensitivity"], gap)
    model_gaps = gaps[(gaps["model"] == model) & (gaps["protocol"] == protocol)]
    found_in = (
        set(model_gaps["dimension"][could_be_shown(model_gaps)]) if len(model_gaps) else set()
    )
    if model_gaps.empty:
        yield f"- {no_gap_sentence(gaps, model, protocol)}"
    for dimension in dict.fromkeys(model_gaps["dimension"]):
        if dimension not in found_in:
            escaped = gaps.assign(dimension=gaps["dimension"].map(markdown))
            yield f"- {no_gap_sentence(escaped, model, protocol, markdown(dimension))}"
            yield from _equivalent(model_gaps[model_gaps["dimension"] == dimension])
    yield from _intersection(tables["intersections"], model, protocol, name)


def _intersection(table: pd.DataFrame, model: str, protocol: str, name: str) -> Iterator[str]:
    """Describe the intersection with the lowest recall, if any is significantly low."""
    model_rows = table[(table["model"] == model) & (table["protocol"] == protocol)]
    worst = worst_intersection(table, model, protocol)
    tested = int(model_rows["enough_n"].astype(bool).sum())
    if worst is not None:
        names = ("dimensions", "group")
        escaped = pd.Series({**worst, **{name: markdown(worst[name]) for name in names}})
        yield f"- {intersection_sentence(escaped, name)}"
    elif tested:
        yield (
            f"- No group of several columns at once could be shown to be read less well than the "
            f"rest, out of {tested} that were tested; `intersections.csv` has the limits."
        )


def _equivalent(rows: pd.DataFrame) -> Iterator[str]:
    """Yield how many gaps are shown to be small."""
    tested = rows[rows["enough_n"].astype(bool)]
    small = tested[tested["equivalent"].astype(bool)]
    if len(tested):
        margin = points(tested["equivalence_margin"].iloc[0])
        yield (
            f"  - Shown to be smaller than {margin} percentage points either way: {len(small)} of "
            f"{len(tested)} (two one-sided tests; `equivalent` in `gaps.csv`)"
        )


def _undone(table: pd.DataFrame, gap: pd.Series) -> Iterator[str]:
    """Yield how many errors in the file would undo a gap."""
    for name in ("model", "protocol", "dataset", "dimension", "emotion"):
        table = table[table[name] == gap[name]]
    pair = {gap["group_a"], gap["group_b"]}
    for row in table.itertuples():
        if {row.group_a, row.group_b} != pair:
            continue
        labels = _number(row.undone_by_labels, row.tried_labels, "wrong label")
        subjects = _number(
            row.undone_by_subjects,
            row.tried_subjects,
            f"subject with a wrong {row.dimension.replace('_', ' ')}",
        )
        yield (
            f"  - {labels}, or {subjects}, can be enough for the interval of this gap to include 0 "
            "(a search by influence; fewer may do)"
        )


def _number(count: Any, tried: int, what: str) -> str:
    if pd.isna(count):
        return f"more than {tried} {markdown(_plural(what))}"
    return f"{count} {markdown(what if count == 1 else _plural(what))}"


def _plural(what: str) -> str:
    first, _, rest = what.partition(" with ")
    return f"{first}s with {rest}" if rest else f"{first}s"


def _on_subjects(
    tables: Tables, untold: MissingColumns, model: str, protocol: str
) -> Iterator[str]:
    """Yield how many subjects are unknown, and where recall per subject differs from pooled."""
    rows = _marginal(tables["groups"], model, protocol)
    if model in untold.nameless:
        nameless, images = untold.nameless[model]
        groups = [
            f"{markdown(row.group)} {row.n_unknown} of {row.n}"
            for row in rows.itertuples()
            if row.n_unknown and row.group != ALL  # none where all are taken as independent
        ]
        by_group = f" ({', '.join(groups)})" if groups else ""
        if untold.independent:
            yield (
                f"- {nameless} of {images} images have no subject id{by_group}: each was taken as "
                "another person, independent of all others, at the user's word."
            )
        elif nameless == images:
            yield (
                f"- Who is in the images is not known{by_group}, so no gap is tested: where one "
                "person has several images, verdicts would come too easily. Give `subject_id`, or "
                "say `--independent-images` if every image shows another person."
            )
        else:
            yield (
                f"- {nameless} of {images} images have no subject id{by_group}: no verdict rests "
                "on them, and groups with too few known subjects are not tested."
            )
    apart = rows[(rows["recall"] - rows["recall_per_subject"]).abs() > _APART]
    for row in apart.itertuples():
        who = "All images" if row.group == ALL else markdown(row.group)
        yield (
            f"- {who}: recall is {percent(row.recall)} over images and "
            f"{percent(row.recall_per_subject)} as the mean over subjects "
            f"({100 * row.confidence:g}\u202f% interval {100 * row.per_subject_ci_low:.1f} to "
            f"{100 * row.per_subject_ci_high:.1f}). In this file subjects with many images are "
            f"read {'better' if row.recall > row.recall_per_subject else 'less well'} than the "
            "others; whether that is more than chance was not tested."
        )


def _marginal(groups: pd.DataFrame, model: str, protocol: str) -> pd.DataFrame:
    """Return the rows of all images and of each single group, over all emotions, with `group`."""
    rows = groups[(groups["model"] == model) & (groups["protocol"] == protocol)]
    rows = rows[(rows[["dataset", "emotion"]] == ALL).all(axis=1)]
    further = list(groups.columns[11 : groups.columns.get_loc("subjects")])
    dims = ["age_band", "gender", *further]
    rows = rows[(rows[dims] != ALL).sum(axis=1) <= 1]
    names = [next((row[d] for d in dims if row[d] != ALL), ALL) for _, row in rows.iterrows()]
    return rows.assign(group=names)


def _escaped(row: pd.Series) -> pd.Series:
    """Return a row of `gaps.csv` whose names are taken as they are by Markdown."""
    names = ("emotion", "dataset", "dimension", "group_a", "group_b")
    return pd.Series({**row, **{name: markdown(row[name]) for name in names}})


def _change(table: pd.DataFrame, pair: tuple[str, str] | None, why: str) -> Iterator[str]:
    """Describe the change over all images between two models, or why there is none."""
    if pair is None or table.empty:
        yield "## One model against another"
        yield ""
        yield f"- No two models are compared (`before_after.csv` is empty): {markdown(why)}."
        return
    row = table.iloc[0]  # all images
    yield f"## {markdown(pair[1])} against {markdown(pair[0])}"
    yield ""
    yield (
        f"- {shared_words(table).capitalize()}, recall goes from {percent(row['recall_base'])} to "
        f"{percent(row['recall_finetuned'])} of {row['n']} pictures: a change of "
        f"{points(row['change'], signed=True)} percentage points "
        f"({100 * row['confidence']:g}\u202f% interval {points(row['ci_low'], signed=True)} to "
        f"{points(row['ci_high'], signed=True)}; {row['gained']} gained, {row['lost']} lost)."
    )


def _standardized(table: pd.DataFrame, gap: pd.Series) -> Iterator[str]:
    """Describe a gap with the same mix of other columns on both sides."""
    for name in ("model", "protocol", "dataset", "dimension", "emotion"):
        table = table[table[name] == gap[name]]
    for row in table[table["standardized_to"] != RAW].itertuples():
        sign = 1 if (row.group_a, row.group_b) == (gap["group_a"], gap["group_b"]) else -1
        limits = sorted((sign * row.ci_low, sign * row.ci_high))
        sizes = (row.n_a, row.n_b)[::sign]
        if {row.group_a, row.group_b} == {gap["group_a"], gap["group_b"]} and row.gap == row.gap:
            yield (
                f"  - with the same mix of {markdown(row.standardized_to)} on both sides: "
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
        people = row.subjects or "not known"
        lines.append(
            f"| {markdown(row.age_band)} | {markdown(row.gender)} | {row.emotion} | {row.n} | "
            f"{people} | "
            f"{row.correct} | {percent(row.recall)} | {100 * row.ci_low:.1f} to "
            f"{100 * row.ci_high:.1f} |"
        )
    return lines


def _left_out(recalls: pd.DataFrame, by: Sequence[str]) -> Iterator[str]:
    """List the comparisons and panels that an audit of many columns or groups leaves out."""
    if len(by) > MANY_COLUMNS:
        yield (
            f"- {len(by)} columns are compared, more than {MANY_COLUMNS}: gaps are standardized "
            "only over all emotions together, to the mix of emotions and to that of all columns "
            "together. The mix of each column alone and gaps of single emotions are left out; "
            f"an audit of at most {MANY_COLUMNS} columns has them"
        )
    groups = len(group_rows(drawn_rows(recalls, by), by))
    if groups > PANELS_AT_MOST:
        yield (
            f"- `recall.png` shows {groups} groups, more than {PANELS_AT_MOST}, and therefore only "
            "recall over all emotions; `groups.csv` has each emotion"
        )


def _cannot(tables: Tables, untold: MissingColumns, by: Sequence[str]) -> Iterator[str]:
    """List what is left out or missing for lack of a column."""
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
        if name == "subject_id" and untold.independent:
            continue
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
