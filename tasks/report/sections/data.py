"""The section on data: images by group and split, what was left out, and the checks."""

from typing import Any

import numpy as np
import pandas as pd

from tasks.core.gap_sentences import percent
from tasks.core.labels import ALL, SPLITS, UNKNOWN, in_order
from tasks.core.statistics.recalls import wilson
from tasks.report.html.components import Cell, Table, group_row_style, plain
from tasks.report.html.formatting import (
    confidence_text,
    count,
    group_name,
    join_names,
    model_name,
    percent_interval,
)
from tasks.report.inputs import REJECTING, Inputs
from tasks.report.sections.cube_rows import group_list, pick

_REASONS = {
    "no_face": "no face found",
    "empty": "empty file",
    "not_an_image": "not a picture",
    "too_large": "too many pixels",
    "animated": "animated",
    "damaged": "damaged",
    "unreadable": "not readable",
}
NO_FACE = "no_face"
_MAX_SAMPLES = 3  # failed rows listed per check


def data_section(inputs: Inputs, confidence: float) -> dict[str, Any]:
    """Return the tables of the section, by the names that the template uses."""
    return {
        "counts": counts_table(inputs),
        "emotions": emotions_table(inputs),
        "left_out": left_out(inputs),
        "rejects": rejects_table(inputs),
        "misses": misses_table(inputs, confidence),
        "checks": checks(inputs.checks),
    }


def counts_of_first_model(inputs: Inputs) -> pd.DataFrame:
    """Return the counts once; they are repeated per model."""
    return inputs.counts[inputs.counts["model"] == inputs.counts["model"].iloc[0]]


def counts_table(inputs: Inputs) -> Table:
    """Return images and subjects per group, and images per group and split."""
    counts = counts_of_first_model(inputs)
    present = set(counts["split"])
    splits = [name for name in (*SPLITS, UNKNOWN) if name in present]
    groups = group_list(counts, inputs.by, crossed=True)
    rows = []
    for group in groups:
        by_split = pick(counts, inputs.by, group, emotion=ALL).set_index("split")
        images = by_split["images"]
        numbers = [images[ALL], by_split.loc[ALL, "subjects"]]
        numbers += [images.get(name, 0) for name in splits]
        rows.append(plain(group_name(group), *map(count, numbers)))
    unit = "picture, not by person" if inputs.split_by_image else "person"
    caption = f"Pictures and people by group and split (split by {unit})."
    if inputs.n_unknown_subjects:
        caption += (
            f" Who is in the picture is not recorded for {count(inputs.n_unknown_subjects)} "
            "pictures; each of them counts as a separate person, and the same person may be in "
            "several splits."
        )
    return Table(
        caption,
        ["group", "pictures", "people", *splits],
        rows,
        row_styles=list(map(group_row_style, groups)),
    )


def emotions_table(inputs: Inputs) -> Table:
    """Return images per group and emotion; missing combinations are zeros."""
    counts = counts_of_first_model(inputs)
    counts = counts[counts["split"] == ALL]
    emotions = in_order(name for name in counts["emotion"] if name != ALL)
    groups = group_list(counts, inputs.by, crossed=False)
    rows = []
    for group in groups:
        images = pick(counts, inputs.by, group).set_index("emotion")["images"]
        numbers = [count(images.get(emotion, 0)) for emotion in emotions]
        rows.append(plain(group_name(group), *numbers))
    return Table(
        "Pictures by group and emotion (the label of the picture).",
        ["group", *emotions],
        rows,
        row_styles=list(map(group_row_style, groups)),
    )


def left_out(inputs: Inputs) -> list[str]:
    """Return one sentence per model that lacks the labels of some images."""
    sentences = []
    for model in dict.fromkeys(inputs.counts["model"]):
        rows = pick(inputs.counts, inputs.by, {}, model=model, split=ALL)
        lacking = rows[(rows["emotion"] != ALL) & (rows["left_out"] > 0)]
        if lacking.empty:
            continue
        names = [f"{row.emotion} ({count(row.left_out)})" for row in lacking.itertuples()]
        sentences.append(
            f"The {model_name(model)} has no label for {join_names(names)}: "
            f"{count(lacking['left_out'].sum())} pictures are left out of its figures."
        )
    return sentences


def rejects_table(inputs: Inputs) -> Table:
    """Return what was left out, by stage, reason and group."""
    known = inputs.manifest.set_index("image_id")
    rows = []
    for stage in REJECTING:
        table = inputs.rejects.get(stage, pd.DataFrame())
        if table.empty:
            continue
        groups = _groups_of(table["image_id"], known, inputs.by)
        pairs = pd.DataFrame({"reason": table["reason"], "group": groups})
        for (reason, group), number in pairs.value_counts(sort=False).items():
            text = _REASONS.get(str(reason), str(reason).replace("_", " "))
            rows.append(plain(stage, text, str(group), count(number)))
    return Table(
        "Files and pictures left out, by stage and reason; the group is known once a picture is "
        "ingested.",
        ["stage", "reason", "group", "n"],
        rows,
        text_columns=["reason", "group"],
    )


def _groups_of(image_ids: pd.Series, known: pd.DataFrame, by: list[str]) -> list[str]:
    """Return the group of each image, or "–" if it was never ingested."""
    values = known.reindex(image_ids)[by].fillna(UNKNOWN).itertuples(index=False, name=None)
    return [
        group_name(dict(zip(by, map(str, row), strict=True))) if image_id in known.index else "–"
        for image_id, row in zip(image_ids, values, strict=True)
    ]


def misses_table(inputs: Inputs, confidence: float) -> Table:
    """Return, per group, in how many images the detector found no face."""
    rejects = inputs.rejects.get("crop", pd.DataFrame(columns=["image_id", "reason"]))
    checked = inputs.rejects.get("check", pd.DataFrame())
    quarantined = set(checked["image_id"]) if len(checked) else set()
    searched = inputs.manifest[~inputs.manifest["image_id"].isin(quarantined)]
    missed = set(rejects["image_id"][rejects["reason"] == NO_FACE]) if len(rejects) else set()
    groups = _manifest_groups(searched, inputs.by) if len(inputs.manifest) else []
    rows = []
    for group in groups:
        part = searched
        for name, value in group.items():
            part = part[part[name].fillna(UNKNOWN) == value]
        n_missed = int(part["image_id"].isin(missed).sum())
        low, high = wilson(np.array([n_missed]), np.array([len(part)]), confidence)
        share = Cell(percent(n_missed / len(part)), percent_interval(low[0], high[0]))
        rows.append([*plain(group_name(group), count(len(part)), count(n_missed)), share])
    return Table(
        "Pictures in which the face detector found no face. A group that is missed more often is "
        "less represented in everything below.",
        ["group", "pictures", "no face", f"share ({confidence_text(confidence)} interval)"],
        rows,
        row_styles=list(map(group_row_style, groups)),
    )


def checks(results: list[dict[str, Any]] | None) -> dict[str, Any] | None:
    """Return how many expectations held, those that failed, and all of them."""
    if results is None:
        return None
    rows = [_check(result) for result in results if isinstance(result, dict)]
    failed = [row for row in rows if not row["success"]]
    return {"total": len(rows), "held": len(rows) - len(failed), "failed": failed, "rows": rows}


def _check(result: dict[str, Any]) -> dict[str, Any]:
    samples = result.get("failed_rows") or []
    column = result.get("column")
    return {
        "name": str(result.get("name", "unnamed")),
        "kind": f"{result.get('kind', '')} {result.get('severity', '')}".strip(),
        "column": "the whole table" if column is None else str(column),
        "expects": str(result.get("expects") or result.get("expectation") or ""),
        "success": bool(result.get("success", False)),
        "observed": _observed(result.get("observed")),
        "unexpected": count(result.get("unexpected_count") or 0),
        "samples": [
            "; ".join(f"{k} {v}" for k, v in row.items()) for row in samples[:_MAX_SAMPLES]
        ],
    }


def _observed(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _manifest_groups(manifest: pd.DataFrame, by: list[str]) -> list[dict[str, str]]:
    groups: list[dict[str, str]] = [{}]
    for name in by:
        values = manifest[name].fillna(UNKNOWN)
        ages = manifest["age_years"].groupby(values).median()
        order = sorted(values.unique(), key=lambda v: (v == UNKNOWN, str(v)))
        if name == "age_band" and ages.notna().any():
            order = list(ages.sort_values().index)
        groups += [{name: str(value)} for value in order]
    return groups
