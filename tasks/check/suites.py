"""The expectations on the manifest, as plain lists built from params.

`Check` pairs one of Great Expectations' own classes with what this project does about a failure:
kind "row" quarantines the rows (severity "fault") or marks them in `warnings` (severity
"warning"); kind "set" stops the stage. A check on a range is silent about nulls, so each column
that must be there has a not-null check of its own, and each suite starts from a row count.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import great_expectations.expectations as gxe
import pyarrow as pa

from tasks.check.params import Params
from tasks.core.labels import AGE_SOURCES, ALL, GENDERS, UNKNOWN
from tasks.core.tables import MANIFEST_SCHEMA

# Columns without which a picture cannot be used; every other column may be null in any row.
NEVER_NULL: tuple[str, ...] = (
    "image_id",
    "path",
    "dataset",
    "subject_id",
    "subject_known",
    "emotion",
    "age_band",
    "gender",
    "width_px",
    "height_px",
    "sha256",
)
_PANDAS_TYPES = {
    pa.string(): "str",
    pa.bool_(): "bool",
    pa.int64(): "int64",
    pa.float64(): "float64",
}


@dataclass(frozen=True)
class Check:
    """One expectation and what a failure of it means.

    Attributes
    ----------
    name
        A short fixed word: the reject's reason, the warning, or the name of a set fault.
    kind
        "row" (judges rows one by one) or "set" (judges the whole).
    expectation
        A class of `great_expectations.expectations`.
    kwargs
        Its arguments.
    expects
        What is expected, in words, to follow "expected".
    advice
        What to do when a set fails.
    shows
        The columns whose values a reject's detail shows; none: the expectation's own column.
    severity
        "fault" or, for rows only, "warning".
    """

    name: str
    kind: Literal["row", "set"]
    expectation: type[gxe.Expectation]
    kwargs: dict[str, Any]
    expects: str
    advice: str = ""
    shows: tuple[str, ...] = ()
    severity: Literal["fault", "warning"] = "fault"


@dataclass(frozen=True)
class Suite:
    """Checks on one frame, under the name that Data Docs show."""

    name: str
    checks: tuple[Check, ...]


def columns_suite() -> Suite:
    """Expect the manifest to hold pictures, and every column of its schema to exist."""
    advice = "run the ingest stage again, or correct what wrote the manifest"
    some_rows = Check(
        "manifest_not_empty",
        "set",
        gxe.ExpectTableRowCountToBeBetween,
        {"min_value": 1},
        "at least 1 picture in the manifest",
        "look at data/rejects/ingest.csv: it says why each picture was left out",
    )
    columns = (
        Check(
            f"column_{name}",
            "set",
            gxe.ExpectColumnToExist,
            {"column": name},
            f"a column '{name}'",
            advice,
        )
        for name in MANIFEST_SCHEMA.names
    )
    return Suite("columns", (some_rows, *columns))


def contents_suite() -> Suite:
    """Expect every column to have its type, and no column that is needed to be all null."""
    types = (
        Check(
            f"type_of_{field.name}",
            "set",
            gxe.ExpectColumnTypeToBe,
            {"column": field.name, "type_": _PANDAS_TYPES[field.type]},
            f"column '{field.name}' to hold {_PANDAS_TYPES[field.type]}",
            "correct what wrote the manifest (a null also turns whole numbers and truth values "
            "into another type)",
        )
        for field in MANIFEST_SCHEMA
    )
    filled = (
        Check(
            f"{name}_not_all_null",
            "set",
            gxe.ExpectColumnProportionOfNonNullValuesToBeBetween,
            {"column": name, "min_value": 0, "strict_min": True},
            f"a value in column '{name}' for some picture",
            "correct what wrote the manifest; where nothing is recorded it writes "
            f"'{UNKNOWN}', not null",
        )
        for name in NEVER_NULL
    )
    return Suite("contents", (*types, *filled))


def rows_suite(params: Params) -> Suite:
    """Judge each picture by itself and against its copies and its subject (see `facts.py`)."""
    return Suite(
        "pictures",
        (*_presence(), *_identity(), *_vocabulary(params), *_ranges(params), *_warnings(params)),
    )


def set_suites(params: Params) -> dict[str, Suite]:
    """Judge the pictures that passed as a whole.

    Returns
    -------
    dict
        By frame: `quarantine` (what did not pass), `passed` (the rows that passed), `known` (their
        columns `required`, with "unknown" as null; not there when params require none), `labels`
        and `groups`; see `facts.py`.
    """
    checks = {
        "quarantine": _quarantine(params),
        "passed": _passed(params),
        "known": _known(params),
        "labels": _labels(params),
        "groups": _groups(params),
    }
    return {
        frame: Suite(frame, listed)
        for frame, listed in checks.items()
        if listed or frame != "known"  # params may require nothing to be known
    }


def _row(
    name: str,
    expectation: type[gxe.Expectation],
    expects: str,
    shows: tuple[str, ...] = (),
    severity: Literal["fault", "warning"] = "fault",
    **kwargs: Any,
) -> Check:
    return Check(name, "row", expectation, kwargs, expects, "", shows, severity)


def _presence() -> tuple[Check, ...]:
    return tuple(
        _row(f"no_{name}", gxe.ExpectColumnValuesToNotBeNull, f"a {name}", column=name)
        for name in NEVER_NULL
    )


def _identity() -> tuple[Check, ...]:
    """Keys that are well formed, and each picture once, under one label, in one data set."""
    unique, matches = gxe.ExpectColumnValuesToBeUnique, gxe.ExpectColumnValuesToMatchRegex
    pair = gxe.ExpectColumnPairValuesToBeEqual
    paths = ("picture_paths",)
    return (
        _row(
            "bad_path",
            matches,
            "a path below data/raw, with forward slashes",
            column="path",
            regex=r"^(?!/)(?!(?:.*/)?\.\.(?:/|$))[^\\]+$",
        ),
        _row("bad_sha256", matches, "64 hex digits", column="sha256", regex="^[0-9a-f]{64}$"),
        _row(
            "bad_image_id",
            pair,
            "the first 16 hex digits of the sha256",
            ("image_id",),
            column_A="image_id",
            column_B="image_id_by_sha256",
            ignore_row_if="either_value_is_missing",
        ),
        _row("duplicate_path", unique, "each file once", column="path"),
        _row(
            "duplicate",
            unique,
            "each picture (sha256) once, in one data set",
            paths,
            column="sha256",
        ),
        _row("duplicate_image_id", unique, "each image_id once", column="image_id"),
        _row(
            "conflicting_labels",
            gxe.ExpectColumnValuesToBeBetween,
            "a picture under one emotion only",
            ("picture_emotions", "picture_paths"),
            column="n_picture_emotions",
            max_value=1,
        ),
        _row(
            "foreign_subject",
            pair,
            "a subject_id '<dataset>/<subject>' of the row's own data set",
            ("dataset", "subject_id"),
            column_A="dataset",
            column_B="subject_dataset",
            ignore_row_if="either_value_is_missing",
        ),
    )


def _vocabulary(params: Params) -> tuple[Check, ...]:
    in_set = gxe.ExpectColumnValuesToBeInSet
    bands = [*params.age_bands, UNKNOWN]
    return (
        _row(
            "unexpected_emotion",
            in_set,
            f"an emotion of check.emotions: {_listed(params.allowed_emotions)}",
            column="emotion",
            value_set=list(params.allowed_emotions),
        ),
        _row(
            "unexpected_gender",
            in_set,
            f"a recorded gender out of {_listed(GENDERS)}",
            column="gender",
            value_set=list(GENDERS),
        ),
        _row(
            "unexpected_age_band",
            in_set,
            f"an age band out of {_listed(bands)}",
            column="age_band",
            value_set=bands,
        ),
        _row(
            "unexpected_age_source",
            in_set,
            f"an age source out of {_listed(AGE_SOURCES)}, or none",
            column="age_source",
            value_set=list(AGE_SOURCES),
        ),
        # `all` names a pooled dimension in the tables of results, so no group may be called so.
        _row(
            "reserved_word",
            gxe.ExpectColumnValuesToNotBeInSet,
            f"a data set not called '{ALL}'",
            column="dataset",
            value_set=[ALL],
        ),
    )


def _ranges(params: Params) -> tuple[Check, ...]:
    between = gxe.ExpectColumnValuesToBeBetween
    low, high = params.age_years
    side = f"at least {params.min_side_px} px"
    return (
        _row(
            "implausible_age",
            between,
            f"an age from {low:g} to {high:g} years, where one is recorded",
            column="age_years",
            min_value=low,
            max_value=high,
        ),
        _row("too_narrow", between, side, column="width_px", min_value=params.min_side_px),
        _row("too_low", between, side, column="height_px", min_value=params.min_side_px),
    )


def _warnings(params: Params) -> tuple[Check, ...]:
    """Mark what keeps no picture out, but what a reader of the results should know."""
    not_in, between = gxe.ExpectColumnValuesToNotBeInSet, gxe.ExpectColumnValuesToBeBetween
    span = params.max_age_span_years
    return (
        _row(
            "unknown_gender",
            not_in,
            "a recorded gender",
            severity="warning",
            column="gender",
            value_set=[UNKNOWN],
        ),
        _row(
            "unknown_age",
            not_in,
            "a known age band",
            severity="warning",
            column="age_band",
            value_set=[UNKNOWN],
        ),
        _row(
            "estimated_age",
            not_in,
            "an age that was recorded, not estimated",
            severity="warning",
            column="age_source",
            value_set=["estimated"],
        ),
        _row(
            "unknown_subject",
            gxe.ExpectColumnValuesToBeInSet,
            "a known subject",
            severity="warning",
            column="subject_known",
            value_set=[True],
        ),
        _row(
            "subject_gender_conflict",
            between,
            "one recorded gender a subject",
            ("subject_id", "subject_genders"),
            "warning",
            column="n_subject_genders",
            max_value=1,
        ),
        _row(
            "subject_age_conflict",
            between,
            f"a subject's ages within {span:g} years",
            ("subject_id", "subject_age_span_years"),
            "warning",
            column="subject_age_span_years",
            max_value=span,
        ),
        _row(
            "subject_lookalikes",
            gxe.ExpectColumnValuesToBeInSet,
            "an id that no other one resembles but for case, leading zeros or `.0`",
            ("subject_id", "subject_lookalikes"),
            "warning",
            column="subject_lookalikes",
            value_set=[""],
        ),
    )


def _passed(params: Params) -> tuple[Check, ...]:
    enough = Check(
        "enough_pictures",
        "set",
        gxe.ExpectTableRowCountToBeBetween,
        {"min_value": params.min_rows},
        f"at least {params.min_rows} pictures that passed",
        "add pictures, or lower check.min_rows",
    )
    if not params.emotions:  # none is asked for by name
        return (enough,)
    expected = Check(
        "expected_emotions",
        "set",
        gxe.ExpectColumnDistinctValuesToContainSet,
        {"column": "emotion", "value_set": list(params.emotions)},
        f"pictures of every emotion of check.emotions: {_listed(params.emotions)}",
        "add pictures, or take the missing emotions out of check.emotions",
    )
    return enough, expected


def _known(params: Params) -> tuple[Check, ...]:
    return tuple(
        Check(
            f"known_{name}",
            "set",
            gxe.ExpectColumnProportionOfNonNullValuesToBeBetween,
            {"column": name, "min_value": 0, "strict_min": True},
            f"a known {name} for some picture",
            f"give the data set its records, or take {name} out of check.required",
        )
        for name in params.required
    )


def _labels(params: Params) -> tuple[Check, ...]:
    return (
        Check(
            "label_balance",
            "set",
            gxe.ExpectColumnValuesToBeBetween,
            {"column": "share", "max_value": params.max_label_share},
            f"no emotion to be more than {params.max_label_share:.0%} of the pictures",
            "add pictures of the other emotions, or raise check.max_label_share",
            ("emotion", "share"),
        ),
    )


def _groups(params: Params) -> tuple[Check, ...]:
    by, between = " × ".join(params.group_by), gxe.ExpectColumnValuesToBeBetween
    names = tuple(params.group_by)
    return (
        Check(
            "known_groups",
            "set",
            gxe.ExpectTableRowCountToBeBetween,
            {"min_value": 1},
            f"pictures with known {by}",
            "take the unknown column out of check.group_by",
        ),
        Check(
            "pictures_per_group",
            "set",
            between,
            {"column": "n_pictures", "min_value": params.min_per_group},
            f"at least {params.min_per_group} pictures a group ({by})",
            "add pictures, or lower check.min_per_group",
            (*names, "n_pictures"),
        ),
        Check(
            "subjects_per_group",
            "set",
            between,
            {"column": "n_subjects", "min_value": params.min_subjects_per_group},
            f"at least {params.min_subjects_per_group} subjects a group ({by})",
            "add subjects, or lower check.min_subjects_per_group",
            (*names, "n_subjects"),
        ),
    )


def _quarantine(params: Params) -> tuple[Check, ...]:
    return (
        Check(
            "few_quarantined",
            "set",
            gxe.ExpectColumnValuesToBeBetween,
            {"column": "quarantined_share", "max_value": params.max_quarantined_share},
            f"at most {params.max_quarantined_share:.0%} of the pictures in quarantine",
            "mend what the expectations on rows found, or raise check.max_quarantined_share",
            ("quarantined_share", "reasons"),
        ),
    )


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words)
