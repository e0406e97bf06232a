"""Runs the suites in order: the manifest's columns, then its rows, then all rows that passed.

A suite that stops the stage ends the sequence, so that a missing column gives one line, not twenty.

A Great Expectations check sees one or two columns of one row. Facts about several rows (the same
image twice, a subject with two recorded genders, images per group) are computed here first, so that
the suites in `suites.py` stay plain lists.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from great_expectations.data_context import EphemeralDataContext

from tasks.check.settings import Params
from tasks.check.suites import columns_suite, contents_suite, rows_suite, set_suites
from tasks.check.validate import Finding, run_suite, split_rows
from tasks.core.labels import GENDERS, UNKNOWN
from tasks.core.tables import rejects_table
from tasks.core.text import find_lookalikes

_RECORDED_GENDERS = [name for name in GENDERS if name != UNKNOWN]
_LISTED_PATHS = 3  # paths of identical copies that are named
NAMES = ("image_id", "path")  # shown with every failed row


def add_derived_columns(manifest: pd.DataFrame, age_years: tuple[float, float]) -> pd.DataFrame:
    """Add the columns that the row suite needs to the manifest, which has an index 0 … n - 1.

    They are `subject_dataset` (the part of `subject_id` before its first "/"), `image_id_by_sha256`
    (the id that follows from the sha256), `image_emotions`, `n_image_emotions` and
    `image_paths` (over all rows with the same sha256), `n_subject_genders`, `subject_genders` and
    `subject_age_span_years` (over all rows of the subject; unknown genders and ages outside
    `age_years` are ignored), and `subject_lookalikes` (other known subjects whose id is easily
    confused with it).
    """
    facts = manifest.copy()
    facts["subject_dataset"] = manifest["subject_id"].str.partition("/")[0]
    facts["image_id_by_sha256"] = manifest["sha256"].str[:16]
    emotions = _sets_by(manifest, "sha256", "emotion")
    facts["image_emotions"] = emotions.map(", ".join)
    facts["n_image_emotions"] = emotions.map(len)
    paths = _sets_by(manifest, "sha256", "path")
    facts["image_paths"] = paths.map(_shortened)
    recorded = manifest.assign(
        gender=manifest["gender"].where(manifest["gender"].isin(_RECORDED_GENDERS)),
        age_years=manifest["age_years"].where(manifest["age_years"].between(*age_years)),
    )
    genders = _sets_by(recorded, "subject_id", "gender")
    facts["subject_genders"] = genders.map(", ".join)
    facts["n_subject_genders"] = genders.map(len)
    ages = recorded.groupby("subject_id")["age_years"]
    facts["subject_age_span_years"] = ages.transform("max") - ages.transform("min")
    known = manifest.loc[manifest["subject_known"].astype(bool), "subject_id"].dropna()
    alike = {name: ", ".join(others) for name, others in find_lookalikes(known.unique()).items()}
    facts["subject_lookalikes"] = manifest["subject_id"].map(lambda name: alike.get(name, ""))
    return facts


def label_shares(passed: pd.DataFrame) -> pd.DataFrame:
    """Return `emotion`, `n_images` and `share` (0 to 1), sorted by emotion."""
    counts = passed.groupby("emotion").size().rename("n_images").reset_index()
    return counts.assign(share=counts["n_images"] / max(len(passed), 1))


def group_counts(passed: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Return `n_images` and `n_subjects` per group, sorted by the columns `by`.

    Images for which one of these columns is unknown or null are in no group: a gap in the records
    is not a group to compare.
    """
    known = unknown_as_null(passed, by).notna().all(axis=1)
    groups = passed[known].groupby(list(by), sort=True)["subject_id"]
    return groups.agg(n_images="size", n_subjects="nunique").reset_index()


def unknown_as_null(passed: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Return the columns with "unknown" replaced by null."""
    values = passed[list(columns)]
    return values.where(values != UNKNOWN)


def quarantine_share(rows_in: int, rejects: pd.DataFrame) -> pd.DataFrame:
    """Return one row: `quarantined_share` (0 to 1) and `reasons` with their counts.

    The most frequent reason comes first.
    """
    ranked = sorted(reason_counts(rejects).items(), key=lambda pair: (-pair[1], pair[0]))
    counts = ", ".join(f"{reason}: {count}" for reason, count in ranked)
    return pd.DataFrame(
        {"quarantined_share": [len(rejects) / max(rows_in, 1)], "reasons": [counts]}
    )


def reason_counts(rejects: pd.DataFrame) -> Counter[str]:
    """Count the reasons of a rejects table, which joins those of a row by "; "."""
    return Counter(reason for row in rejects["reason"] for reason in row.split("; "))


def _sets_by(table: pd.DataFrame, key: str, column: str) -> pd.Series:
    """Map each row to the sorted tuple of the column's values over all rows with its key."""
    pairs = table[[key, column]].dropna().drop_duplicates().sort_values([key, column])
    sets = pairs.groupby(key)[column].agg(tuple)
    tuples = table[key].map(sets)
    return tuples.map(lambda values: values if isinstance(values, tuple) else ())


def _shortened(paths: tuple[str, ...]) -> str:
    n_hidden = len(paths) - _LISTED_PATHS
    return ", ".join(paths[:_LISTED_PATHS]) + (f" and {n_hidden} more" if n_hidden > 0 else "")


@dataclass(frozen=True)
class ValidationReport:
    """The findings of all suites, and the manifest split by them."""

    findings: tuple[Finding, ...]  # in order; suites after one that stops the stage did not run
    passed: pd.DataFrame | None  # with `warnings`; None if a suite stopped before the rows
    rejects: pd.DataFrame

    @property
    def faults(self) -> list[Finding]:
        """The findings that stop the stage."""
        return [finding for finding in self.findings if finding.stops]


def run_suites(
    manifest: pd.DataFrame, params: Params, context: EphemeralDataContext
) -> ValidationReport:
    """Check a manifest (index 0 … n - 1) against every suite.

    The context must be a fresh one; it keeps the results for Data Docs.
    """
    findings: list[Finding] = []
    for suite in (columns_suite(), contents_suite()):
        findings += run_suite(context, suite, manifest)
        if any(finding.stops for finding in findings):
            return ValidationReport(tuple(findings), None, rejects_table())
    derived = add_derived_columns(manifest, params.age_years)
    row_findings = run_suite(context, rows_suite(params), derived, NAMES)
    findings += row_findings
    if any(finding.stops for finding in row_findings):
        return ValidationReport(tuple(findings), None, rejects_table())
    passed, rejects = split_rows(manifest, derived, row_findings)
    for frame, suite in set_suites(params).items():
        findings += run_suite(context, suite, _frame(frame, passed, rejects, params))
    return ValidationReport(tuple(findings), passed, rejects)


def _frame(name: str, passed: pd.DataFrame, rejects: pd.DataFrame, params: Params) -> pd.DataFrame:
    match name:
        case "passed":
            return passed
        case "known":
            return unknown_as_null(passed, params.required_columns)
        case "labels":
            return label_shares(passed)
        case "groups":
            return group_counts(passed, params.group_by)
        case _:
            return quarantine_share(len(passed) + len(rejects), rejects)
