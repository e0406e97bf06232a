"""The expectations on the manifest, as plain lists built from params.

`Check` pairs a Great Expectations class with the consequence of a failure. Kind "row" quarantines
the rows (severity "fault") or names the check in their `warnings` (severity "warning"). Kind "set"
stops the stage. Range checks ignore nulls, so every required column also has a not-null check, and
every suite starts from a row count.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import great_expectations.expectations as gxe
import pyarrow as pa

from tasks.check.settings import Params
from tasks.core.labels import AGE_SOURCES, ALL, GENDERS, UNKNOWN
from tasks.core.tables import MANIFEST_SCHEMA

# Columns that an image cannot be used without; all others may be null.
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
    """One expectation and the consequence of a failure."""

    name: str  # the reject's reason, the warning, or the name of a set fault
    kind: Literal["row", "set"]  # checks rows one by one, or all rows together
    expectation: type[gxe.Expectation]
    kwargs: dict[str, Any]
    expects: str  # words to follow "expected"
    advice: str = ""  # what to do if a set check fails
    shows: tuple[str, ...] = ()  # columns in a reject's detail; default: the checked column
    severity: Literal["fault", "warning"] = "fault"  # warnings are for rows only


@dataclass(frozen=True)
class Suite:
    """Checks of one frame, under the name that Data Docs show."""

    name: str
    checks: tuple[Check, ...]


def set_check(
    name: str,
    expects: str,
    advice: str,
    shows: tuple[str, ...] = (),
    expectation: type[gxe.Expectation] = gxe.ExpectColumnValuesToBeBetween,
    **kwargs: Any,
) -> Check:
    """Return a check whose failure stops the stage."""
    return Check(name, "set", expectation, kwargs, expects, advice, shows)


def columns_suite() -> Suite:
    """Return the checks that the manifest has rows and every column of its schema."""
    some_rows = set_check(
        "manifest_not_empty",
        "at least 1 picture in the manifest",
        "data/rejects/ingest.csv says why each picture was left out",
        expectation=gxe.ExpectTableRowCountToBeBetween,
        min_value=1,
    )
    columns = (
        set_check(
            f"column_{name}",
            f"a column '{name}'",
            "run the ingest stage again, or correct what wrote the manifest",
            expectation=gxe.ExpectColumnToExist,
            column=name,
        )
        for name in MANIFEST_SCHEMA.names
    )
    return Suite("columns", (some_rows, *columns))


def contents_suite() -> Suite:
    """Return the checks of every column's type, and that no required column is all null."""
    types = (
        set_check(
            f"type_of_{field.name}",
            f"column '{field.name}' to hold {_PANDAS_TYPES[field.type]}",
            "correct what wrote the manifest (a null also turns integers and booleans into "
            "another type)",
            expectation=gxe.ExpectColumnTypeToBe,
            column=field.name,
            type_=_PANDAS_TYPES[field.type],
        )
        for field in MANIFEST_SCHEMA
    )
    filled = (
        _some_value(
            f"{name}_not_all_null",
            f"a value in column '{name}' for some picture",
            "correct what wrote the manifest; where nothing is recorded it writes "
            f"'{UNKNOWN}', not null",
            name,
        )
        for name in NEVER_NULL
    )
    return Suite("contents", (*types, *filled))


def rows_suite(params: Params) -> Suite:
    """Return the checks of each image, its copies and its subject (see `facts.py`)."""
    return Suite(
        "pictures",
        (*_presence(), *_identity(), *_vocabulary(params), *_ranges(params), *_warnings(params)),
    )


def set_suites(params: Params) -> dict[str, Suite]:
    """Return the checks of all images that passed, by the frame that each suite runs on.

    The frames are described in `judge.py`. `known` is absent if params require no column.
    """
    checks = {
        "quarantine": _quarantine(params),
        "passed": _passed(params),
        "known": _known(params),
        "labels": _labels(params),
        "groups": _groups(params),
    }
    return {
        frame: Suite(frame, checks_of_frame)
        for frame, checks_of_frame in checks.items()
        if checks_of_frame or frame != "known"
    }


def _some_value(name: str, expects: str, advice: str, column: str) -> Check:
    return set_check(
        name,
        expects,
        advice,
        expectation=gxe.ExpectColumnProportionOfNonNullValuesToBeBetween,
        column=column,
        min_value=0,
        strict_min=True,
    )


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
    """Return the checks that keys are well formed and each image occurs once, under one label."""
    unique, matches = gxe.ExpectColumnValuesToBeUnique, gxe.ExpectColumnValuesToMatchRegex
    pair = gxe.ExpectColumnPairValuesToBeEqual
    paths = ("image_paths",)
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
            ("image_emotions", "image_paths"),
            column="n_image_emotions",
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
    bands = [*params.age_bands, UNKNOWN]
    emotions = params.allowed_emotions
    return (
        _one_of("emotion", f"an emotion of check.emotions: {_listed(emotions)}", emotions),
        _one_of("gender", f"a recorded gender out of {_listed(GENDERS)}", GENDERS),
        _one_of("age_band", f"an age band out of {_listed(bands)}", bands),
        _one_of("age_source", f"an age source out of {_listed(AGE_SOURCES)}, or none", AGE_SOURCES),
        # `all` names a pooled dimension in the result tables, so no group may be called that.
        _row(
            "reserved_word",
            gxe.ExpectColumnValuesToNotBeInSet,
            f"a data set not called '{ALL}'",
            column="dataset",
            value_set=[ALL],
        ),
    )


def _one_of(column: str, expects: str, values: Iterable[str]) -> Check:
    return _row(
        f"unexpected_{column}",
        gxe.ExpectColumnValuesToBeInSet,
        expects,
        column=column,
        value_set=list(values),
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
    """Return the checks that only mark an image, for readers of the results."""
    span = params.max_age_span_years
    return (
        _not("unknown_gender", "a recorded gender", "gender", UNKNOWN),
        _not("unknown_age", "a known age band", "age_band", UNKNOWN),
        _not("estimated_age", "an age that was recorded, not estimated", "age_source", "estimated"),
        _only("unknown_subject", "a known subject", "subject_known", True),
        _at_most(
            "subject_gender_conflict",
            "one recorded gender per subject",
            "n_subject_genders",
            1,
            "subject_genders",
        ),
        _at_most(
            "subject_age_conflict",
            f"a subject's ages within {span:g} years",
            "subject_age_span_years",
            span,
            "subject_age_span_years",
        ),
        _only(
            "subject_lookalikes",
            "an id that differs from all others by more than case, leading zeros or `.0`",
            "subject_lookalikes",
            "",
            ("subject_id", "subject_lookalikes"),
        ),
    )


def _not(name: str, expects: str, column: str, value: str) -> Check:
    expectation = gxe.ExpectColumnValuesToNotBeInSet
    return _row(name, expectation, expects, (), "warning", column=column, value_set=[value])


def _only(
    name: str, expects: str, column: str, value: bool | str, shows: tuple[str, ...] = ()
) -> Check:
    expectation = gxe.ExpectColumnValuesToBeInSet
    return _row(name, expectation, expects, shows, "warning", column=column, value_set=[value])


def _at_most(name: str, expects: str, column: str, limit: float, detail: str) -> Check:
    expectation, shows = gxe.ExpectColumnValuesToBeBetween, ("subject_id", detail)
    return _row(name, expectation, expects, shows, "warning", column=column, max_value=limit)


def _passed(params: Params) -> tuple[Check, ...]:
    enough = set_check(
        "enough_pictures",
        f"at least {params.min_rows} pictures that passed",
        "add pictures, or lower check.min_rows",
        expectation=gxe.ExpectTableRowCountToBeBetween,
        min_value=params.min_rows,
    )
    if not params.emotions:  # no emotion is required by name
        return (enough,)
    expected = set_check(
        "expected_emotions",
        f"pictures of every emotion of check.emotions: {_listed(params.emotions)}",
        "add pictures, or take the missing emotions out of check.emotions",
        expectation=gxe.ExpectColumnDistinctValuesToContainSet,
        column="emotion",
        value_set=list(params.emotions),
    )
    return enough, expected


def _known(params: Params) -> tuple[Check, ...]:
    return tuple(
        _some_value(
            f"known_{name}",
            f"a known {name} for some picture",
            f"add it to the data set's records, or take {name} out of check.required_columns",
            name,
        )
        for name in params.required_columns
    )


def _labels(params: Params) -> tuple[Check, ...]:
    return (
        set_check(
            "label_balance",
            f"no emotion to be more than {params.max_label_share:.0%} of the pictures",
            "add pictures of the other emotions, or raise check.max_label_share",
            ("emotion", "share"),
            column="share",
            max_value=params.max_label_share,
        ),
    )


def _groups(params: Params) -> tuple[Check, ...]:
    by, columns = " × ".join(params.group_by), tuple(params.group_by)
    return (
        set_check(
            "known_groups",
            f"pictures with known {by}",
            "take the unknown column out of check.group_by",
            expectation=gxe.ExpectTableRowCountToBeBetween,
            min_value=1,
        ),
        set_check(
            "images_per_group",
            f"at least {params.min_per_group} pictures per group ({by})",
            "add pictures, or lower check.min_per_group",
            (*columns, "n_images"),
            column="n_images",
            min_value=params.min_per_group,
        ),
        set_check(
            "subjects_per_group",
            f"at least {params.min_subjects_per_group} subjects per group ({by})",
            "add subjects, or lower check.min_subjects_per_group",
            (*columns, "n_subjects"),
            column="n_subjects",
            min_value=params.min_subjects_per_group,
        ),
    )


def _quarantine(params: Params) -> tuple[Check, ...]:
    return (
        set_check(
            "few_quarantined",
            f"at most {params.max_quarantined_share:.0%} of the pictures in quarantine",
            "fix what the row checks found, or raise check.max_quarantined_share",
            ("quarantined_share", "reasons"),
            column="quarantined_share",
            max_value=params.max_quarantined_share,
        ),
    )


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words)
