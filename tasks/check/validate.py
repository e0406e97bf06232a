"""Runs suites with Great Expectations and turns its answers into plain, repeatable records.

The context is ephemeral: nothing is read from or written to a project folder, no progress bars, no
telemetry, no network. Two things that Great Expectations lets pass are faults here: a suite without
expectations, and an expectation that could not be evaluated (a missing column). Its answers come
back in no fixed order, so that they are matched by name.
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
from tasks.core.text import printable

SAMPLE_ROWS = 10  # failed rows that a record shows
_DIGITS = 6  # significant digits of an observed figure
_SEVERITY = {"fault": "critical", "warning": "warning"}


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes
    ----------
    suite
        The suite's name.
    check
        The check; for an empty suite a set check named `suite_not_empty`.
    success
        Whether the expectation was met.
    observed
        What was seen: a figure, a type, the missing values, or why it could not be evaluated.
    positions
        Failed rows of the frame, as positions from 0, ascending.
    failed_rows
        The first `SAMPLE_ROWS` of them, as column to value.
    evaluated
        False where the expectation raised instead of answering.
    """

    suite: str
    check: Check
    success: bool
    observed: Any = None
    positions: tuple[int, ...] = ()
    failed_rows: tuple[dict[str, Any], ...] = ()
    evaluated: bool = True

    @property
    def stops(self) -> bool:
        """Whether this finding stops the stage."""
        return not self.success and (self.check.kind == "set" or not self.evaluated)

    @property
    def quarantines(self) -> bool:
        """Whether the failed rows are to be left out."""
        return not (self.success or self.stops) and self.check.severity == "fault"

    def line(self) -> str:
        """Say in one line what failed, what was observed and what to do."""
        if not self.evaluated:
            found = f"it could not be evaluated: {self.observed}"
        elif self.failed_rows:
            found = "found " + _rows_in_words(self.failed_rows, len(self.positions))
        elif isinstance(self.observed, list):
            found = "missing: " + ", ".join(map(str, self.observed))
        else:
            found = f"found {'none' if self.observed is None else self.observed}"
        return f"{self.check.name}: expected {self.check.expects}; {found}; {self.check.advice}"

    def record(self) -> dict[str, Any]:
        """Return the finding as JSON-ready values; the keys are described in `stage.py`."""
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
    """Open an ephemeral Great Expectations context that keeps to itself."""
    config = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(),
        analytics_enabled=False,
        progress_bars=ProgressBarsConfig(globally=False),
    )
    return gx.get_context(mode="ephemeral", project_config=config)


def run_suite(
    context: EphemeralDataContext, suite: Suite, frame: pd.DataFrame, shows: Sequence[str] = ()
) -> list[Finding]:
    """Hold a frame against a suite.

    Parameters
    ----------
    context
        From `new_context`; keeps the results for `write_data_docs`. A suite's name is used once.
    suite
        The checks.
    frame
        What they look at; its index must be 0 … n - 1.
    shows
        Columns that a sample of failed rows shows beside those of the check, where the frame has
        them.

    Returns
    -------
    list of Finding
        One a check, in the suite's order. A suite without checks gives one failed finding.
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
    """Return the findings as JSON text: no time stamps or ids, so same input, same bytes."""
    records = [finding.record() for finding in findings]
    return json.dumps(records, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_data_docs(context: EphemeralDataContext, folder: Path) -> Path:
    """Render Great Expectations' own Data Docs of every suite that was run.

    Parameters
    ----------
    context
        The context of the runs.
    folder
        An absolute path; what is there is replaced.

    Returns
    -------
    pathlib.Path
        The folder, with `index.html` in it. The pages hold time stamps, and a browser fetches
        their style sheets from the network: they are for reading, never an input.
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
    for tour in (folder / "static").rglob("*.gif"):  # 3 MB of animated help that no page shows
        tour.unlink()
    return folder


def _escape_values(context: EphemeralDataContext) -> None:
    """Escape the values in the stored results, which the pages show as they are."""
    store = context.validation_results_store
    for key in store.list_keys():
        results = store.get(key)
        for one in results.results:
            one.result = _escaped(one.result)
        store.set(key, results)


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return html.escape(printable(value))
    if isinstance(value, dict):
        return {key: _escaped(inner) for key, inner in value.items()}
    return [_escaped(inner) for inner in value] if isinstance(value, (list, tuple)) else value


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
    raised = _raised(answer)
    if raised is not None:
        return Finding(suite, check, success=False, observed=raised, evaluated=False)
    result = answer.result
    positions = tuple(sorted(result.get("unexpected_index_list") or ()))
    if check.kind == "row" and not answer.success and not positions:
        return Finding(suite, check, False, "no row was named", evaluated=False)
    columns = [name for name in frame.columns if name in {*shows, *shown_columns(check)}]
    sample = frame.loc[list(positions[:SAMPLE_ROWS]), columns]
    rows = tuple(
        {name: plain(value) for name, value in zip(sample.columns, row, strict=True)}
        for row in sample.itertuples(index=False, name=None)
    )
    return Finding(suite, check, bool(answer.success), _observed(result), positions, rows)


def shown_columns(check: Check) -> tuple[str, ...]:
    """Return the columns whose values explain a failure of the check."""
    column = check.kwargs.get("column")
    return check.shows or ((column,) if column is not None else ())


def plain(value: Any) -> Any:
    """Turn a cell into a JSON value: null for NaN, figures at 6 significant digits."""
    if value is None or value is pd.NA or value != value:
        return None
    value = value.item() if hasattr(value, "item") else value
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value


def _raised(answer: ExpectationValidationResult) -> str | None:
    """Return the message of the error that an expectation raised, None where it answered."""
    if answer.success or answer.result:
        return None
    for info in (answer.exception_info or {}).values():
        if isinstance(info, dict) and info.get("raised_exception"):
            return " ".join(str(info["exception_message"]).split())
    if (answer.exception_info or {}).get("raised_exception"):
        return " ".join(str(answer.exception_info["exception_message"]).split())
    return None


def _observed(result: dict[str, Any]) -> Any:
    """Return what was seen: the missing values, else the observed value, else the count."""
    if result.get("partial_missing_list"):
        return sorted(result["partial_missing_list"])
    if isinstance(result.get("observed_value"), list):
        return sorted(map(plain, result["observed_value"]))
    if "observed_value" in result:
        return plain(result["observed_value"])
    return plain(result.get("unexpected_count"))


def _pair(kwargs: dict[str, Any]) -> str | None:
    return f"{kwargs['column_A']}, {kwargs['column_B']}" if "column_A" in kwargs else None


def _rows_in_words(rows: Sequence[dict[str, Any]], count: int) -> str:
    words = ", ".join(
        "(" + ", ".join(f"{name} {value}" for name, value in row.items()) + ")" for row in rows
    )
    return words + (f" and {count - len(rows)} more" if count > len(rows) else "")
