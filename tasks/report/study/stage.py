"""Stage `study_report`: one self-contained page about the results of a study.

Reads study/tables, study/test.csv, data/split.parquet and params.yaml; writes reports/study.html
and reports/study/ (the page's figures and tables).
"""

import shutil

from pydantic import ConfigDict

from tasks.core.files import write_text
from tasks.core.gap_sentences import percent
from tasks.core.labels import credit_line
from tasks.core.params import Section
from tasks.core.paths import Paths
from tasks.core.plotting.html import render
from tasks.core.stages import StageResult
from tasks.report.html.components import TEMPLATES
from tasks.report.study.figures import draw_study
from tasks.report.study.inputs import load_study
from tasks.report.study.page import study_context, test_row

PAGE, FOLDER = "reports/study.html", "reports/study"


class Params(Section):
    """The part of section `study` that the page reads; the package `study` checks all of it.

    The other settings are in study/tables/study.json, as they were when the study ran.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    confidence: float


def run(params: Params, paths: Paths) -> StageResult:
    """Write the page, its figures and its tables; raise DataError without a finished study."""
    inputs = load_study(paths)
    folder = paths.at(FOLDER)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    figures = draw_study(inputs, credit_line(inputs.datasets), folder)
    for name in (*inputs.tables, "test"):
        source = paths.at("study/test.csv" if name == "test" else f"study/tables/{name}.csv")
        shutil.copyfile(source, folder / f"{name}.csv")
    page = render(TEMPLATES, "study.html.j2", study_context(inputs, paths, figures))
    write_text(paths.at(PAGE), page)
    test = test_row(inputs)
    return StageResult(
        {"test_mean_recall": float(test["value"])},
        artifacts=[paths.at(PAGE), folder],
        summary=f"{', '.join(inputs.summary[part] for part in ('backbone', 'loss', 'optimizer'))}: "
        f"{percent(test['value'])} mean recall on test pictures. Report: {PAGE}",
    )
