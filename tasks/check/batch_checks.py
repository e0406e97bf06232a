"""Checks a batch before it is added to the data, by itself and together with the existing data.

A batch is checked against the row suite of the stage `check` and against its own limits. The whole
stage then runs on the combined data, so that no batch is accepted that would stop it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tasks.check import run_suites
from tasks.check.run_suites import NAMES
from tasks.check.run_suites import run_suites as run_suites_run_suites
from tasks.check.settings import Params
from tasks.check.suites import Check, Suite, rows_suite, set_check
from tasks.check.validate import new_context, run_suite, split_rows

_SUBJECT = "subject_id"


@dataclass(frozen=True)
class BatchLimits:
    """The limits on a batch; section `intake` of params.yaml explains each."""

    min_images: int
    max_faulty_share: float
    max_repeated_share: float
    max_label_share: float
    required: tuple[str, ...]


def batch_faults(
    rows: pd.DataFrame,
    left_out: Mapping[str, int],
    repeated: int,
    limits: BatchLimits,
    params: Params,
) -> list[str]:
    """Check a batch by itself; return one line per failed expectation.

    `rows` holds its usable images as rows of the manifest (index 0 … n - 1), `left_out` counts
    the other files by reason, and `repeated` is how many of its images are in the data already.
    """
    reasons = Counter(left_out)
    if rows.empty:
        return [f"pictures: expected at least 1 that can be used; found {_listed(reasons)}"]
    context = new_context()
    derived = run_suites.add_derived_columns(rows, params.age_years)
    results = run_suite(context, rows_suite(params), derived, NAMES)
    passed, rejects = split_rows(rows, derived, results)
    reasons.update(run_suites.reason_counts(rejects))
    files = len(rows) + sum(left_out.values())
    totals = pd.DataFrame(
        {
            "n_images": [len(passed)],
            "faulty_share": [(files - len(passed)) / files],
            "faults": [_listed(reasons)],
            "repeated_share": [repeated / len(rows)],
            **_unknown(rows, limits.required),
        }
    )
    findings = [finding for finding in results if finding.stops]
    findings += run_suite(context, _batch_suite(limits), totals)
    findings += run_suite(context, _label_suite(limits), run_suites.label_shares(rows))
    return [finding.line() for finding in findings if not finding.success]


def pipeline_faults(there: pd.DataFrame, rows: pd.DataFrame, params: Params) -> list[str]:
    """Return one line per expectation of the stage `check` that a batch would make fail.

    `there` holds all rows of the manifest without the batch, `rows` those of the batch.
    Expectations that already fail without the batch are not listed.
    """
    # `ingest` drops images of the batch that are in the data already.
    new = rows[~rows["sha256"].isin(there["sha256"])]
    combined = pd.concat([there, new], ignore_index=True).astype(there.dtypes.to_dict())
    faults = run_suites_run_suites(combined, params, new_context()).faults
    if not faults:
        return []
    failing_before = {
        fault.check.name for fault in run_suites_run_suites(there, params, new_context()).faults
    }
    return [fault.line() for fault in faults if fault.check.name not in failing_before]


def _batch_suite(limits: BatchLimits) -> Suite:
    return Suite(
        "batch",
        (
            set_check(
                "pictures",
                f"at least {limits.min_images} usable pictures",
                "send more in one batch, or lower intake.min_images",
                column="n_images",
                min_value=limits.min_images,
            ),
            set_check(
                "faulty",
                f"at most {limits.max_faulty_share:.0%} of the files to be no usable picture",
                "fix or remove them, or raise intake.max_faulty_share",
                ("faulty_share", "faults"),
                column="faulty_share",
                max_value=limits.max_faulty_share,
            ),
            set_check(
                "repeated",
                f"at most {limits.max_repeated_share:.0%} of the pictures to be in the data before",
                "send new pictures only, or raise intake.max_repeated_share",
                ("repeated_share",),
                column="repeated_share",
                max_value=limits.max_repeated_share,
            ),
            *_known_checks(limits),
        ),
    )


def _label_suite(limits: BatchLimits) -> Suite:
    balance = set_check(
        "label_balance_of_the_batch",
        f"no emotion to be more than {limits.max_label_share:.0%} of the batch",
        "check whether labels were mixed up, or raise intake.max_label_share",
        ("emotion", "share"),
        column="share",
        max_value=limits.max_label_share,
    )
    return Suite("labels of the batch", (balance,))


def _known_checks(limits: BatchLimits) -> tuple[Check, ...]:
    return tuple(
        set_check(
            f"known_{name}",
            f"a known {name} for every picture",
            f"add it to labels.csv, or take {name} out of intake.required_columns",
            (f"unknown_{name}", f"first_without_{name}"),
            column=f"unknown_{name}",
            max_value=0,
        )
        for name in limits.required
    )


def _unknown(rows: pd.DataFrame, required: Sequence[str]) -> dict[str, list[Any]]:
    """Count the images for which a column is unknown, with the path of the first of them."""
    values = run_suites.unknown_as_null(rows, required)
    if _SUBJECT in required:
        values = values.assign(**{_SUBJECT: rows[_SUBJECT].where(rows["subject_known"])})
    columns: dict[str, list[Any]] = {}
    for name in required:
        paths = rows["path"][values[name].isna()]
        columns[f"unknown_{name}"] = [len(paths)]
        columns[f"first_without_{name}"] = [next(iter(paths), "")]
    return columns


def _listed(reasons: Mapping[str, int]) -> str:
    pairs = Counter(reasons).most_common()
    return ", ".join(f"{count} {reason}" for reason, count in pairs) or "none"
