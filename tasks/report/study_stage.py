"""Stage `study_report`: one self-contained page over what a study compared, chose and tested.

Reads study/tables, study/test.csv, data/split.parquet and params.yaml; writes reports/study.html
and reports/study/ (the figures, and the tables that the page shows).
"""

import shutil

from pydantic import ConfigDict

from tasks.core.files import write_text
from tasks.core.headline import percent
from tasks.core.labels import credit_line
from tasks.core.params import Section
from tasks.core.paths import Paths
from tasks.core.render import render
from tasks.core.result import StageResult
from tasks.report.block import TEMPLATES
from tasks.report.study_figures import draw_study
from tasks.report.study_inputs import load_study
from tasks.report.study_page import study_context, test_row

PAGE, FOLDER = "reports/study.html", "reports/study"


class Params(Section):
    """What the page takes from section `study`; the room `study` checks all of it.

    The rest of what it shows stands in study/tables/study.json, as it was when the study was made.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    confidence: float


def run(params: Params, paths: Paths) -> StageResult:
    """Write the page, its figures and its tables.

    Raises
    ------
    DataError
        Where the study has not been finished.
    """
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
    tested = test_row(inputs)
    return StageResult(
        {"test_mean_recall": float(tested["value"])},
        artifacts=[paths.at(PAGE), folder],
        summary=f"{inputs.whole['backbone']}, {inputs.whole['loss']}, {inputs.whole['optimiser']}: "
        f"{percent(tested['value'])} mean recall on test pictures. Report: {PAGE}",
    )
