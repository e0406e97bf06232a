"""Checks on a batch before it becomes part of the data: by itself, and with all that is there.

A batch is held against the suite on rows of the stage `check` and against limits of its own; then
all data with it against the whole stage, so that no batch is taken in that would stop it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import great_expectations.expectations as gxe
import pandas as pd

from tasks.check import facts
from tasks.check.judge import judge
from tasks.check.params import Params
from tasks.check.quarantine import split_rows
from tasks.check.suites import Check, Suite, rows_suite
from tasks.check.validate import new_context, run_suite

_NAMES = ("image_id", "path")
_SUBJECT = "subject_id"


@dataclass(frozen=True)
class BatchLimits:
    """What a batch must keep to; section `intake` of params.yaml explains each."""

    min_pictures: int
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
    """Say what keeps a batch out, judged by itself.

    Parameters
    ----------
    rows
        Its usable pictures as rows of the manifest, index 0 … n - 1.
    left_out
        Files that are no usable picture: reason to count.
    repeated
        How many of its pictures were taken in before.
    limits
        The limits on batches.
    params
        The stage's parameters.

    Returns
    -------
    list of str
        One line a failed expectation; empty where all are met.
    """
    reasons = Counter(left_out)
    if rows.empty:
        return [f"pictures: expected at least 1 that can be used; found {_listed(reasons)}"]
    context = new_context()
    known = facts.row_facts(rows, params.age_years)
    found = run_suite(context, rows_suite(params), known, _NAMES)
    passed, rejects = split_rows(rows, known, found)
    reasons.update(reason for row in rejects["reason"] for reason in row.split("; "))
    files = len(rows) + sum(left_out.values())
    as_a_whole = pd.DataFrame(
        {
            "n_pictures": [len(passed)],
            "faulty_share": [(files - len(passed)) / files],
            "faults": [_listed(reasons)],
            "repeated_share": [repeated / len(rows)],
            **_unknown(rows, limits.required),
        }
    )
    findings = [finding for finding in found if finding.stops]
    findings += run_suite(context, _whole_suite(limits), as_a_whole)
    findings += run_suite(context, _label_suite(limits), facts.label_shares(rows))
    return [finding.line() for finding in findings if not finding.success]


def pipeline_faults(there: pd.DataFrame, rows: pd.DataFrame, params: Params) -> list[str]:
    """Say what would stop the stage `check` once a batch is there, and does not stop it now.

    Parameters
    ----------
    there
        All rows of the manifest without the batch.
    rows
        The batch's rows.
    params
        The stage's parameters.

    Returns
    -------
    list of str
        One line a failed expectation that the data without the batch meets.
    """
    # A picture that is there already is left out of the batch by `ingest`.
    new = rows[~rows["sha256"].isin(there["sha256"])]
    together = pd.concat([there, new], ignore_index=True).astype(there.dtypes.to_dict())
    faults = judge(together, params, new_context()).faults
    if not faults:
        return []
    before = {fault.check.name for fault in judge(there, params, new_context()).faults}
    return [fault.line() for fault in faults if fault.check.name not in before]


def _whole_suite(limits: BatchLimits) -> Suite:
    between = gxe.ExpectColumnValuesToBeBetween
    return Suite(
        "batch",
        (
            Check(
                "pictures",
                "set",
                between,
                {"column": "n_pictures", "min_value": limits.min_pictures},
                f"at least {limits.min_pictures} usable pictures",
                "send more in one batch, or lower intake.min_pictures",
            ),
            Check(
                "faulty",
                "set",
                between,
                {"column": "faulty_share", "max_value": limits.max_faulty_share},
                f"at most {limits.max_faulty_share:.0%} of the files to be no usable picture",
                "mend or remove them, or raise intake.max_faulty_share",
                ("faulty_share", "faults"),
            ),
            Check(
                "repeated",
                "set",
                between,
                {"column": "repeated_share", "max_value": limits.max_repeated_share},
                f"at most {limits.max_repeated_share:.0%} of the pictures to be taken in already",
                "send new pictures only, or raise intake.max_repeated_share",
                ("repeated_share",),
            ),
            *_known_checks(limits),
        ),
    )


def _label_suite(limits: BatchLimits) -> Suite:
    balance = Check(
        "label_balance_of_the_batch",
        "set",
        gxe.ExpectColumnValuesToBeBetween,
        {"column": "share", "max_value": limits.max_label_share},
        f"no emotion to be more than {limits.max_label_share:.0%} of the batch",
        "look whether labels were mixed up, or raise intake.max_label_share",
        ("emotion", "share"),
    )
    return Suite("labels of the batch", (balance,))


def _known_checks(limits: BatchLimits) -> tuple[Check, ...]:
    return tuple(
        Check(
            f"known_{name}",
            "set",
            gxe.ExpectColumnValuesToBeBetween,
            {"column": f"unknown_{name}", "max_value": 0},
            f"a known {name} for every picture",
            f"add it to labels.csv, or take {name} out of intake.required",
            (f"unknown_{name}", f"first_without_{name}"),
        )
        for name in limits.required
    )


def _unknown(rows: pd.DataFrame, required: Sequence[str]) -> dict[str, list[Any]]:
    """Count the pictures for which a column is unknown, and name the first of them."""
    values = facts.known_values(rows, required)
    if _SUBJECT in required:
        values = values.assign(**{_SUBJECT: rows[_SUBJECT].where(rows["subject_known"])})
    found: dict[str, list[Any]] = {}
    for name in required:
        without = rows["path"][values[name].isna()]
        found[f"unknown_{name}"] = [len(without)]
        found[f"first_without_{name}"] = [next(iter(without), "")]
    return found


def _listed(reasons: Mapping[str, int]) -> str:
    pairs = Counter(reasons).most_common()
    return ", ".join(f"{count} {reason}" for reason, count in pairs) or "none"
