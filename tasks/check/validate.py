"""Runs suites with Great Expectations and converts its results into plain, repeatable records.

The context is ephemeral: it reads and writes no project folder, shows no progress bars, sends no
telemetry and uses no network. Great Expectations accepts a suite without expectations and an
expectation that could not be evaluated (a missing column); both are faults here. Its results arrive
in no fixed order, so they are matched by name.
"""

import html
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import great_expectations as gx
import pandas as pd
from great_expectations.core import ExpectationValidationResult
from great_expectations.data_context import EphemeralDataContext
from great_expectations.data_context.types.base import (
    DataContextConfig,
    InMemoryStoreBackendDefaults,
    ProgressBarsConfig,
)

from tasks.check.suites import Check, Suite
from tasks.core.tables import rejects_table
from tasks.core.text import printable

SAMPLE_ROWS = 10  # failed rows in a record
_DIGITS = 6  # significant digits of an observed number
_SEVERITY = {"fault": "critical", "warning": "warning"}
_JOIN = "; "


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    suite: str
    check: Check
    success: bool
    observed: Any = None  # a number, a type, the missing values, or why evaluation failed
    positions: tuple[int, ...] = ()  # failed rows of the frame, from 0, ascending
    failed_rows: tuple[dict[str, Any], ...] = ()  # the first `SAMPLE_ROWS` of them
    evaluated: bool = True  # False if the expectation raised an error

    @property
    def stops(self) -> bool:
        """Whether this finding stops the stage."""
        return not self.success and (self.check.kind == "set" or not self.evaluated)

    @property
    def quarantines(self) -> bool:
        """Whether the failed rows are rejected."""
        return not (self.success or self.stops) and self.check.severity == "fault"

    def line(self) -> str:
        """Return one line: what failed, what was observed and what to do."""
        if not self.evaluated:
            outcome = f"it could not be evaluated: {self.observed}"
        elif self.failed_rows:
            outcome = "found " + _rows_in_words(self.failed_rows, len(self.positions))
        elif isinstance(self.observed, list):
            outcome = "missing: " + ", ".join(map(str, self.observed))
        else:
            outcome = f"found {'none' if self.observed is None else self.observed}"
        return f"{self.check.name}: expected {self.check.expects}; {outcome}; {self.check.advice}"

    def record(self) -> dict[str, Any]:
        """Return the finding as JSON values; `stage.py` describes the keys."""
        kwargs = self.check.kwargs
        return {
            "name": self.check.name,
            "suite": self.suite,
            "kind": self.check.kind,
            "severity": self.check.severity,
            "column": kwargs.get("column") or _pair(kwargs),
            "expectation": self.check.expectation.__name__,
            "kwargs": dict(kwargs),
            "expects": self.check.expects,
            "success": self.success,
            "observed": self.observed,
            "unexpected_count": len(self.positions),
            "failed_rows": list(self.failed_rows),
        }


def new_context() -> EphemeralDataContext:
    """Return an ephemeral Great Expectations context without telemetry or progress bars."""
    config = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(),
        analytics_enabled=False,
        progress_bars=ProgressBarsConfig(globally=False),
    )
    return gx.get_context(mode="ephemeral", project_config=config)


def run_suite(
    context: EphemeralDataContext, suite: Suite, frame: pd.DataFrame, shows: Sequence[str] = ()
) -> list[Finding]:
    """Check a frame (index 0 … n - 1) against a suite; return one finding per check, in order.

    A suite without checks gives one failed finding. The context keeps the results for
    `write_data_docs`, so a suite's name can be used only once per context. `shows` names further
    columns for the sample of failed rows, where the frame has them.
    """
    if not suite.checks:
        return [_empty(suite)]
    source = context.data_sources.add_pandas(suite.name)
    batch = source.add_dataframe_asset(suite.name).add_batch_definition_whole_dataframe("all rows")
    expectations = context.suites.add(
        gx.ExpectationSuite(
            name=suite.name, expectations=[_expectation(check) for check in suite.checks]
        )
    )
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(name=suite.name, data=batch, suite=expectations)
    )
    answers = definition.run(
        batch_parameters={"dataframe": frame}, result_format={"result_format": "COMPLETE"}
    )
    by_name = {answer.expectation_config.meta["name"]: answer for answer in answers.results}
    return [
        _finding(suite.name, check, by_name[check.name], frame, shows) for check in suite.checks
    ]


def checks_json(findings: Sequence[Finding]) -> str:
    """Return the findings as JSON text without time stamps or ids: same input, same bytes."""
    records = [finding.record() for finding in findings]
    return json.dumps(records, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_data_docs(context: EphemeralDataContext, folder: Path) -> Path:
    """Render Great Expectations' Data Docs of every suite that was run, replacing the folder.

    `folder` must be absolute; `index.html` is in it. The pages hold time stamps, and a browser
    loads their style sheets from the network: they are for reading, never an input.
    """
    shutil.rmtree(folder, ignore_errors=True)
    site = {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "store_backend": {
            "class_name": "TupleFilesystemStoreBackend",
            "base_directory": str(folder),
        },
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
    }
    _escape_values(context)
    context.add_data_docs_site(site_name="local", site_config=site)
    context.build_data_docs(site_names=["local"])
    for tour in (folder / "static").rglob("*.gif"):  # 3 MB of animated help that no page links to
        tour.unlink()
    return folder


def _escape_values(context: EphemeralDataContext) -> None:
    """Escape the values in the stored results, which the pages do not escape."""
    store = context.validation_results_store
    for key in store.list_keys():
        results = store.get(key)
        for result in results.results:
            result.result = _escaped(result.result)
        store.set(key, results)


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return html.escape(printable(value))
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    return [_escaped(item) for item in value] if isinstance(value, (list, tuple)) else value


def _expectation(check: Check) -> Any:
    return check.expectation(
        **check.kwargs,
        meta={"name": check.name},
        notes=f"{check.name}: expected {check.expects}",
        severity=_SEVERITY[check.severity],
    )


def _empty(suite: Suite) -> Finding:
    check = Check(
        "suite_not_empty",
        "set",
        gx.expectations.ExpectTableRowCountToBeBetween,
        {},
        f"expectations in suite '{suite.name}'",
        "a suite without expectations would pass anything; add some in tasks/check/suites.py",
    )
    return Finding(suite.name, check, success=False)


def _finding(
    suite: str,
    check: Check,
    answer: ExpectationValidationResult,
    frame: pd.DataFrame,
    shows: Sequence[str],
) -> Finding:
    error = _raised(answer)
    if error is not None:
        return Finding(suite, check, success=False, observed=error, evaluated=False)
    result = answer.result
    positions = tuple(sorted(result.get("unexpected_index_list") or ()))
    if check.kind == "row" and not answer.success and not positions:
        return Finding(suite, check, False, "no row was named", evaluated=False)
    columns = [name for name in frame.columns if name in {*shows, *reported_columns(check)}]
    sample = frame.loc[list(positions[:SAMPLE_ROWS]), columns]
    rows = tuple(
        {name: json_value(value) for name, value in zip(sample.columns, row, strict=True)}
        for row in sample.itertuples(index=False, name=None)
    )
    return Finding(suite, check, bool(answer.success), _observed(result), positions, rows)


def reported_columns(check: Check) -> tuple[str, ...]:
    """Return the columns whose values explain a failure of the check."""
    column = check.kwargs.get("column")
    return check.shows or ((column,) if column is not None else ())


def json_value(value: Any) -> Any:
    """Convert a cell to a JSON value: null for NaN, floats at 6 significant digits."""
    if value is None or value is pd.NA or value != value:
        return None
    value = value.item() if hasattr(value, "item") else value
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value


def _raised(answer: ExpectationValidationResult) -> str | None:
    """Return the message of the error that an expectation raised, or None."""
    if answer.success or answer.result:
        return None
    details = answer.exception_info or {}  # of one metric, or one entry per metric
    for info in (*details.values(), details):
        if isinstance(info, dict) and info.get("raised_exception"):
            return " ".join(str(info["exception_message"]).split())
    return None


def _observed(result: dict[str, Any]) -> Any:
    """Return the missing values, else the observed value, else the count of failed rows."""
    if result.get("partial_missing_list"):
        return sorted(result["partial_missing_list"])
    if isinstance(result.get("observed_value"), list):
        return sorted(map(json_value, result["observed_value"]))
    if "observed_value" in result:
        return json_value(result["observed_value"])
    return json_value(result.get("unexpected_count"))


def _pair(kwargs: dict[str, Any]) -> str | None:
    return f"{kwargs['column_A']}, {kwargs['column_B']}" if "column_A" in kwargs else None


def _rows_in_words(rows: Sequence[dict[str, Any]], count: int) -> str:
    words = ", ".join(
        "(" + ", ".join(f"{name} {value}" for name, value in row.items()) + ")" for row in rows
    )
    return words + (f" and {count - len(rows)} more" if count > len(rows) else "")


def split_rows(
    manifest: pd.DataFrame, facts: pd.DataFrame, findings: Sequence[Finding]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split the manifest (index 0 … n - 1) into rows that passed and rejects.

    The passed rows get a column `warnings` (names joined by "; ", or ""). A rejected row appears
    once; its reasons and its details (`column = value`) are joined by "; " in the same order.
    `facts` holds the same rows with the derived columns that the checks used.
    """
    reasons = _texts(len(manifest), [finding for finding in findings if finding.quarantines])
    warnings = _texts(
        len(manifest),
        [finding for finding in findings if finding.check.severity == "warning"],
    )
    rejected = [position for position, failed in enumerate(reasons) if failed]
    rows = [_reject(manifest.iloc[row], facts.iloc[row], reasons[row]) for row in rejected]
    warning_names = [_JOIN.join(finding.check.name for finding in failed) for failed in warnings]
    passed = manifest.assign(warnings=pd.Series(warning_names, index=manifest.index, dtype="str"))
    return passed.drop(index=rejected).reset_index(drop=True), rejects_table(rows)


def _texts(count: int, findings: Sequence[Finding]) -> list[list[Finding]]:
    by_row: list[list[Finding]] = [[] for _ in range(count)]
    for finding in findings:
        for position in finding.positions:
            by_row[position].append(finding)
    return by_row


def _reject(row: pd.Series, facts: pd.Series, findings: Sequence[Finding]) -> tuple[str, ...]:
    image_id, path = (json_value(row[name]) or "" for name in ("image_id", "path"))
    reasons = _JOIN.join(finding.check.name for finding in findings)
    details = _JOIN.join(_detail(facts, finding) for finding in findings)
    return image_id, path, reasons, details


def _detail(facts: pd.Series, finding: Finding) -> str:
    return ", ".join(f"{name} = {_word(facts[name])}" for name in reported_columns(finding.check))


def _word(value: object) -> str:
    cell = json_value(value)
    if isinstance(cell, float):
        return f"{cell:g}"
    return "null" if cell is None else str(cell)
