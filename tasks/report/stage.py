"""Stage `report`: one self-contained page over everything that the other stages found.

Reads the manifest, predictions, audit tables, figures, rejects, check results, training histories
and run records, and of the random test pictures the files in data/raw; writes
`reports/report.html`, `reports/metrics.json` and the two figures that no other stage draws. What
an optional input lacks is said in the page, in a sentence.
"""

import json
from pathlib import Path
from typing import Annotated

from pydantic import Field

from tasks.core.files import write_text
from tasks.core.headline import largest_gap
from tasks.core.labels import credit_line
from tasks.core.params import Section
from tasks.core.paths import MODELS, Paths
from tasks.core.render import render
from tasks.core.result import StageResult
from tasks.report.block import TEMPLATES
from tasks.report.figures import training_figure
from tasks.report.findings import metrics
from tasks.report.inputs import Inputs, load
from tasks.report.page import context
from tasks.report.random_pictures import choose_pictures, pictures_figure
from tasks.report.strategies_section import kept_epochs, worst_group_models


class Params(Section):
    """The section `report` of params.yaml."""

    title: Annotated[str, Field(min_length=1)]
    question: Annotated[str, Field(min_length=1)]
    test_pictures: Annotated[int, Field(ge=0, le=50)]
    seed: int


def run(params: Params, paths: Paths) -> StageResult:
    """Write the report; see the module's text.

    Raises
    ------
    DataError
        Where the manifest, the predictions, the crops or one of the audit's tables is missing.
    """
    inputs = load(paths)
    figures = _draw(params, paths, inputs)
    values = context(inputs, paths, params.title, params.question, figures)
    write_text(paths.report, render(TEMPLATES, "report.html.j2", values))
    numbers = metrics(inputs)
    text = json.dumps(numbers, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(paths.metrics, text + "\n")
    return StageResult(
        metrics=_tracked(inputs),
        artifacts=[paths.report, paths.metrics, *figures.values()],
        summary=f"{values['findings']['lead']} Report: {paths.report.relative_to(paths.root)}",
    )


def _draw(params: Params, paths: Paths, inputs: Inputs) -> dict[str, Path]:
    """Draw the two figures and return their paths by name."""
    credit = credit_line(inputs.datasets)
    figures = {name: paths.figures / f"{name}.png" for name in ("test_pictures", "training")}
    chosen = choose_pictures(inputs.predictions, params.test_pictures, params.seed)
    pictures_figure(paths, inputs.predictions, chosen, credit, figures["test_pictures"])
    training_figure(
        inputs.histories,
        worst_group_models(inputs),
        kept_epochs(inputs),
        credit,
        figures["training"],
    )
    return figures


def _tracked(inputs: Inputs) -> dict[str, float]:
    """Pick the figures to track: the largest gaps of the base model, as shares."""
    found = {
        "largest_gap": largest_gap(inputs.gaps, MODELS[0], single_emotions=False),
        "largest_gap_of_an_emotion": largest_gap(inputs.gaps, MODELS[0], single_emotions=True),
    }
    return {name: float(-row["gap"]) for name, row in found.items() if row is not None}
