"""Checks the manifest before anything is learnt from it.

Reads `data/manifest.parquet`; writes `data/checked.parquet` (the rows that passed, and `warnings`),
`data/rejects/check.csv` and `data/checks.json`; renders Great Expectations' Data Docs below
`work/check/` as an artefact of the run. A wrong row (an impossible age, one picture under two
labels, a subject of another data set) is quarantined; a wrong whole (a missing column, too few
pictures a group, one label with too large a share) stops the stage with a `DataError`, one line a
failed expectation.

- Same picture: `sha256`, `image_id` and `path` must be unique over all data sets. Every copy is
  quarantined, for nobody here knows which of two records is right; copies under two emotions are
  also named `conflicting_labels`.
- Same subject: names of subjects cannot be compared between data sets, so `subject_id` is
  "<dataset>/<subject>", and a row whose subject belongs to another data set than its own is
  quarantined. So no `subject_id` occurs in two data sets.
- One subject with two recorded genders (`subject_gender_conflict`) or with ages further apart than
  `max_age_span_years` (`subject_age_conflict`), two whose ids are easily confused, such as S01 and
  s01 (`subject_lookalikes`), an unknown gender, age or subject, and an estimated age do not keep a
  picture out: they are named in `warnings`.

`data/checks.json` is a list, in the order of the suites, of objects with

    name              reject's reason, warning or set fault; unique over all suites
    suite             columns, contents, pictures, quarantine, passed, known, labels or groups
    kind              "row" or "set"
    severity          "fault" or "warning"
    column            the column, two of them joined by ", ", or null (the table)
    expectation       the class in great_expectations.expectations
    kwargs            its arguments
    expects           what was expected, in words
    success           true or false
    observed          figure, type or list of missing values; for rows the count of failed rows
    unexpected_count  failed rows of the frame that the suite looks at (0 for checks of a whole)
    failed_rows       the first 10 of them, as column to value

It holds no times, paths of this machine or random ids: same manifest and params, same bytes.
"""

import hashlib
import shutil
from pathlib import Path

from tasks.check.judge import Judgement, judge
from tasks.check.params import Params
from tasks.check.validate import checks_json, new_context, write_data_docs
from tasks.core.errors import DataError
from tasks.core.files import sha256_of, write_text
from tasks.core.paths import Paths
from tasks.core.result import StageResult
from tasks.core.tables import (
    MANIFEST_SCHEMA,
    check_conservation,
    read_table,
    write_csv,
    write_table,
)

__all__ = ["Params", "run"]


def run(params: Params, paths: Paths) -> StageResult:
    """Check the manifest, part it into rows that passed and rejects, and write both.

    Raises
    ------
    DataError
        One line a failed expectation on the whole; the results and the rows that would have been
        rejected are then kept below `work/check/`, for a failed stage has no outputs.
    """
    manifest = read_table(paths.manifest)
    context = new_context()
    judgement = judge(manifest, params, context)
    kept = _fresh_folder(paths, params)
    docs = write_data_docs(context, kept / "data_docs")
    if judgement.passed is None or judgement.faults:
        raise DataError(*_stop(judgement, kept, paths))
    passed, rejects = judgement.passed, judgement.rejects
    check_conservation("check", len(manifest), len(passed), len(rejects))
    write_csv(rejects, paths.rejects("check"))
    write_text(paths.check_results, checks_json(judgement.findings))
    write_table(passed, paths.checked, MANIFEST_SCHEMA)
    warned = int((passed["warnings"] != "").sum())
    failed = sum(not finding.success for finding in judgement.findings)
    return StageResult(
        metrics={
            "pictures_in": len(manifest),
            "pictures_passed": len(passed),
            "pictures_quarantined": len(rejects),
            "pictures_with_warnings": warned,
            "expectations": len(judgement.findings),
            "expectations_failed": failed,
        },
        artifacts=[docs, paths.check_results, paths.rejects("check")],
        summary=(
            f"{len(passed)} of {len(manifest)} pictures passed {len(judgement.findings)} "
            f"expectations, {len(rejects)} in quarantine, {warned} with warnings"
        ),
    )


def _fresh_folder(paths: Paths, params: Params) -> Path:
    """Make the folder of this manifest and these params; those of earlier ones go."""
    content = sha256_of(paths.manifest) + params.model_dump_json()
    folder = paths.work("check", hashlib.sha256(content.encode()).hexdigest()[:16])
    shutil.rmtree(folder.parent, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _stop(judgement: Judgement, kept: Path, paths: Paths) -> list[str]:
    write_text(kept / "checks.json", checks_json(judgement.findings))
    write_csv(judgement.rejects, kept / "rejects.csv")
    lines = [finding.line() for finding in judgement.faults]
    count = "1 expectation" if len(lines) == 1 else f"{len(lines)} expectations"
    where = paths.manifest.relative_to(paths.root)
    head = f"{where}: failed {count} (details: {kept.relative_to(paths.root)}/)"
    return [head, *lines]
