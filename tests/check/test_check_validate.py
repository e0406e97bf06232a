"""What Great Expectations lets pass on its own is a fault here."""

from pathlib import Path

import great_expectations.expectations as gxe
import pandas as pd

from tasks.check.suites import Check, Suite
from tasks.check.validate import new_context, run_suite, write_data_docs

FRAME = pd.DataFrame({"age_years": [3.0, 30.0, float("nan")]})


def between(name: str, column: str, **limits: float) -> Check:
    return Check(
        name,
        "row",
        gxe.ExpectColumnValuesToBeBetween,
        {"column": column, **limits},
        "an age",
    )


def test_suite_without_expectations_fails_with_a_line() -> None:
    (finding,) = run_suite(new_context(), Suite("nothing", ()), FRAME)
    assert finding.stops
    assert "expected expectations in suite 'nothing'" in finding.line()


def test_expectation_that_cannot_be_evaluated_stops_instead_of_passing_rows() -> None:
    suite = Suite("ages", (between("age", "age_in_years", min_value=0),))
    (finding,) = run_suite(new_context(), suite, FRAME)
    assert finding.stops
    assert not finding.quarantines
    assert "age_in_years" in finding.line()


def test_findings_keep_the_suites_order_and_name_rows_by_position() -> None:
    checks = (
        between("low", "age_years", min_value=10),
        between("any", "age_years", min_value=0),
        between("high", "age_years", max_value=10),
    )
    findings = run_suite(new_context(), Suite("ages", checks), FRAME, shows=("age_years",))
    assert [finding.check.name for finding in findings] == ["low", "any", "high"]
    assert [finding.positions for finding in findings] == [(0,), (), (1,)]
    assert findings[0].failed_rows == ({"age_years": 3.0},)


def test_values_are_text_in_the_pages_of_the_results(tmp_path: Path) -> None:
    names = ["<script>alert(1)</script>", "<img src=x onerror=alert(2)>", "\x1b[2J"]
    check = Check(
        "known", "row", gxe.ExpectColumnValuesToBeInSet, {"column": "w", "value_set": ["a"]}, "a"
    )
    context = new_context()
    run_suite(context, Suite("words", (check,)), pd.DataFrame({"w": ["a", *names]}))
    docs = write_data_docs(context, tmp_path / "docs")
    (page,) = (docs / "validations").rglob("*.html")
    text = page.read_text(encoding="utf-8")
    assert "alert(1)" in text and "<script>alert" not in text and "<img src=x" not in text
    assert "\x1b" not in text
