"""Runs the suites in order: what the manifest is, then its rows, then what passed as a whole.

A suite that stops ends the order, so that one missing column gives one line and not twenty.
"""

from dataclasses import dataclass

import pandas as pd
from great_expectations.data_context import EphemeralDataContext

from tasks.check import facts
from tasks.check.params import Params
from tasks.check.quarantine import split_rows
from tasks.check.suites import columns_suite, contents_suite, rows_suite, set_suites
from tasks.check.validate import Finding, run_suite
from tasks.core.tables import rejects_table

_NAMES = ("image_id", "path")  # shown with every failed row


@dataclass(frozen=True)
class Judgement:
    """What all suites found, and the manifest parted by it.

    Attributes
    ----------
    findings
        One a check, in the order of the suites; suites after one that stops are not among them.
    passed
        The rows that passed, with `warnings`; None where the order ended before the rows.
    rejects
        The rejects table.
    """

    findings: tuple[Finding, ...]
    passed: pd.DataFrame | None
    rejects: pd.DataFrame

    @property
    def faults(self) -> list[Finding]:
        """The findings that stop the stage."""
        return [finding for finding in self.findings if finding.stops]


def judge(manifest: pd.DataFrame, params: Params, context: EphemeralDataContext) -> Judgement:
    """Hold a manifest against every suite.

    Parameters
    ----------
    manifest
        One row a picture, with an index 0 … n - 1.
    params
        The stage's parameters.
    context
        A fresh context; it keeps the results for Data Docs.
    """
    findings: list[Finding] = []
    for suite in (columns_suite(), contents_suite()):
        findings += run_suite(context, suite, manifest)
        if any(finding.stops for finding in findings):
            return Judgement(tuple(findings), None, rejects_table())
    known = facts.row_facts(manifest, params.age_years)
    rows = run_suite(context, rows_suite(params), known, _NAMES)
    findings += rows
    if any(finding.stops for finding in rows):
        return Judgement(tuple(findings), None, rejects_table())
    passed, rejects = split_rows(manifest, known, rows)
    for frame, suite in set_suites(params).items():
        findings += run_suite(context, suite, _frame(frame, passed, rejects, params))
    return Judgement(tuple(findings), passed, rejects)


def _frame(name: str, passed: pd.DataFrame, rejects: pd.DataFrame, params: Params) -> pd.DataFrame:
    match name:
        case "passed":
            return passed
        case "known":
            return facts.known_values(passed, params.required)
        case "labels":
            return facts.label_shares(passed)
        case "groups":
            return facts.group_counts(passed, params.group_by)
        case _:
            return facts.quarantine_share(len(passed) + len(rejects), rejects)
