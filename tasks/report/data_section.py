"""The data: pictures by group and split, what was left out and of whom, and the checks."""

from typing import Any

import numpy as np
import pandas as pd

from tasks.core.intervals import wilson
from tasks.core.labels import ALL, SPLITS, UNKNOWN, in_order
from tasks.report.cells import group_list, pick
from tasks.report.inputs import REJECTING, Inputs
from tasks.report.words import count, group_word, listed, model_word, percent, span

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
_SHOWN_CHECKS = 3  # failed rows that the report lists


def data_section(inputs: Inputs, confidence: float) -> dict[str, Any]:
    """Return the tables of the section on data.

    Keys: `counts` (by group and split), `emotions` (by group and emotion), `left_out` (sentences
    on labels that a model lacks), `rejects`, `rejects_total`, `misses` (the face detector's, by
    group), `checks`.
    """
    return {
        "counts": counts_rows(inputs),
        "emotions": emotion_rows(inputs),
        "left_out": left_out(inputs),
        "rejects": reject_rows(inputs),
        "rejects_total": sum(len(table) for table in inputs.rejects.values()),
        "misses": miss_rows(inputs, confidence),
        "checks": checks(inputs.checks),
    }


def counts_rows(inputs: Inputs) -> dict[str, Any]:
    """Return pictures and subjects of every group, and pictures by split."""
    counts = inputs.counts[inputs.counts["model"] == inputs.counts["model"].iloc[0]]
    present = set(counts["split"])
    splits = [name for name in (*SPLITS, UNKNOWN) if name in present]
    rows = []
    for where in group_list(counts, inputs.by, crossed=True):
        by_split = pick(counts, inputs.by, where, emotion=ALL).set_index("split")
        rows.append(
            {
                "group": group_word(where),
                "depth": len(where),
                "pictures": count(by_split.loc[ALL, "pictures"]),
                "subjects": count(by_split.loc[ALL, "subjects"]),
                "splits": [
                    count(by_split.loc[name, "pictures"]) if name in by_split.index else "0"
                    for name in splits
                ],
            }
        )
    unknown = int((~inputs.manifest["subject_known"].astype(bool)).sum())
    return {"splits": splits, "rows": rows, "unknown_people": count(unknown) if unknown else ""}


def emotion_rows(inputs: Inputs) -> dict[str, Any]:
    """Return pictures of every group by emotion; a gap in the data is a zero."""
    counts = inputs.counts[inputs.counts["model"] == inputs.counts["model"].iloc[0]]
    counts = counts[counts["split"] == ALL]
    emotions = in_order(name for name in counts["emotion"] if name != ALL)
    rows = []
    for where in group_list(counts, inputs.by, crossed=False):
        cells = pick(counts, inputs.by, where).set_index("emotion")["pictures"]
        rows.append(
            {
                "group": group_word(where),
                "cells": [count(cells.get(emotion, 0)) for emotion in emotions],
            }
        )
    return {"emotions": emotions, "rows": rows}


def left_out(inputs: Inputs) -> list[str]:
    """Say how many pictures each model leaves out, because it lacks their label."""
    said = []
    for model in dict.fromkeys(inputs.counts["model"]):
        rows = pick(inputs.counts, inputs.by, {}, model=model, split=ALL)
        lacking = rows[(rows["emotion"] != ALL) & (rows["left_out"] > 0)]
        if lacking.empty:
            continue
        names = [f"{row.emotion} ({count(row.left_out)})" for row in lacking.itertuples()]
        said.append(
            f"The {model_word(model)} has no label for {listed(names)}: "
            f"{count(lacking['left_out'].sum())} pictures are left out of its figures."
        )
    return said


def reject_rows(inputs: Inputs) -> list[dict[str, str]]:
    """Return what was left out, by stage, reason and group where the picture's group is known."""
    known = inputs.manifest.set_index("image_id")
    rows = []
    for stage in REJECTING:
        table = inputs.rejects.get(stage, pd.DataFrame())
        if table.empty:
            continue
        groups = _groups_of(table["image_id"], known, inputs.by)
        tallied = pd.DataFrame({"reason": table["reason"], "group": groups}).value_counts(
            sort=False
        )
        for (reason, group), number in tallied.items():
            words = _REASONS.get(str(reason), str(reason).replace("_", " "))
            rows.append({"stage": stage, "reason": words, "group": str(group), "n": count(number)})
    return rows


def _groups_of(image_ids: pd.Series, known: pd.DataFrame, by: list[str]) -> list[str]:
    """Name the group of each picture; a picture that was never ingested has none that is known."""
    values = known.reindex(image_ids)[by].fillna(UNKNOWN).itertuples(index=False, name=None)
    return [
        group_word(dict(zip(by, map(str, row), strict=True))) if image_id in known.index else "–"
        for image_id, row in zip(image_ids, values, strict=True)
    ]


def miss_rows(inputs: Inputs, confidence: float) -> list[dict[str, str]]:
    """Return, by group, in how many pictures the face detector found none."""
    crop = inputs.rejects.get("crop", pd.DataFrame(columns=["image_id", "reason"]))
    if not len(inputs.manifest):
        return []
    checked = inputs.rejects.get("check", pd.DataFrame())
    dropped = set(checked["image_id"]) if len(checked) else set()
    seen = inputs.manifest[~inputs.manifest["image_id"].isin(dropped)]
    missed = set(crop["image_id"][crop["reason"] == NO_FACE]) if len(crop) else set()
    rows = []
    for where in _manifest_groups(seen, inputs.by):
        part = seen
        for name, value in where.items():
            part = part[part[name].fillna(UNKNOWN) == value]
        none = int(part["image_id"].isin(missed).sum())
        low, high = wilson(np.array([none]), np.array([len(part)]), confidence)
        rows.append(
            {
                "group": group_word(where),
                "n": count(len(part)),
                "missed": count(none),
                "share": percent(none / len(part)),
                "interval": span(low[0], high[0]),
            }
        )
    return rows


def checks(results: list[dict[str, Any]] | None) -> dict[str, Any] | None:
    """Return the expectations: how many held, which did not, and all of them."""
    if results is None:
        return None
    rows = [_check(result) for result in results if isinstance(result, dict)]
    failed = [row for row in rows if not row["success"]]
    return {"total": len(rows), "held": len(rows) - len(failed), "failed": failed, "rows": rows}


def _check(result: dict[str, Any]) -> dict[str, Any]:
    samples = result.get("failed_rows") or []
    shown = ["; ".join(f"{k} {v}" for k, v in row.items()) for row in samples[:_SHOWN_CHECKS]]
    column = result.get("column")
    return {
        "name": str(result.get("name", "unnamed")),
        "kind": f"{result.get('kind', '')} {result.get('severity', '')}".strip(),
        "column": "the whole table" if column is None else str(column),
        "expects": str(result.get("expects") or result.get("expectation") or ""),
        "success": bool(result.get("success", False)),
        "observed": _observed(result.get("observed")),
        "unexpected": count(result.get("unexpected_count") or 0),
        "samples": shown,
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
