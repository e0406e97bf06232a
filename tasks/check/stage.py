"""Checks the manifest before anything is trained on it.

Reads `data/manifest.parquet`; writes `data/checked.parquet` (the rows that passed, and `warnings`),
`data/rejects/check.csv` and `data/checks.json`; renders Great Expectations' Data Docs below
`work/check/` as an artifact of the run.

Bad rows (an impossible age, one image under two labels, a subject of another data set) are
quarantined. A bad manifest (a missing column, too few images per group, one label with too large
a share) stops the stage with a `DataError` that has one line per failed expectation.

- Same image: `sha256`, `image_id` and `path` must be unique over all data sets. Every copy is
  quarantined, because the stage cannot know which of two records is right. Copies under two
  emotions are also named `conflicting_labels`.
- Same subject: subject names cannot be compared between data sets, so `subject_id` is
  "<dataset>/<subject>", and a row whose subject belongs to another data set is quarantined. No
  `subject_id` therefore occurs in two data sets.
- Warnings do not exclude an image; they are listed in `warnings`: one subject with two recorded
  genders (`subject_gender_conflict`) or with ages further apart than `max_age_span_years`
  (`subject_age_conflict`), two subjects whose ids are easily confused, such as S01 and s01
  (`subject_lookalikes`), an unknown gender, age or subject, and an estimated age.

`data/checks.json` is a list, in the order of the suites, of objects with

    name              reject reason, warning or set fault; unique over all suites
    suite             columns, contents, images, quarantine, passed, known, labels or groups
    kind              "row" or "set"
    severity          "fault" or "warning"
    column            the column, two joined by ", ", or null (the whole table)
    expectation       the class in great_expectations.expectations
    kwargs            its arguments
    expects           what was expected, in words
    success           true or false
    observed          number, type or list of missing values; for rows the count of failed rows
    unexpected_count  failed rows of the suite's frame (0 for checks of a whole table)
    failed_rows       the first 10 of them, as column to value

It holds no times, absolute paths or random ids: same manifest and params, same bytes.
"""

import hashlib
import shutil
from pathlib import Path

from tasks.check.run_suites import ValidationReport, run_suites
from tasks.check.settings import Params
from tasks.check.validate import checks_json, new_context, write_data_docs
from tasks.core.errors import DataError
from tasks.core.files import sha256_of, write_text
from tasks.core.paths import Paths
from tasks.core.stages import StageResult
from tasks.core.tables import (
    MANIFEST_SCHEMA,
    check_conservation,
    read_table,
    write_csv,
    write_table,
)

__all__ = ["Params", "run"]


def run(params: Params, paths: Paths) -> StageResult:
    """Check the manifest, split it into rows that passed and rejects, and write both.

    Raises DataError with one line per failed expectation on the whole manifest. The results and the
    would-be rejects are then saved below `work/check/`, because a failed stage has no outputs.
    """
    manifest = read_table(paths.manifest)
    context = new_context()
    judgement = run_suites(manifest, params, context)
    folder = _fresh_folder(paths, params)
    docs = write_data_docs(context, folder / "data_docs")
    if judgement.passed is None or judgement.faults:
        raise DataError(*_stop(judgement, folder, paths))
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
    """Create the folder of this manifest and these params; remove those of earlier ones."""
    content = sha256_of(paths.manifest) + params.model_dump_json()
    folder = paths.work("check", hashlib.sha256(content.encode()).hexdigest()[:16])
    shutil.rmtree(folder.parent, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _stop(judgement: ValidationReport, folder: Path, paths: Paths) -> list[str]:
    write_text(folder / "checks.json", checks_json(judgement.findings))
    write_csv(judgement.rejects, folder / "rejects.csv")
    lines = [finding.line() for finding in judgement.faults]
    count = "1 expectation" if len(lines) == 1 else f"{len(lines)} expectations"
    name = paths.manifest.relative_to(paths.root)
    summary = f"{name}: failed {count} (details: {folder.relative_to(paths.root)}/)"
    return [summary, *lines]
