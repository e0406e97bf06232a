"""Stage `report`: one self-contained page about the results of the other stages.

Reads the manifest, predictions, audit tables, figures, rejects, check results, training histories
and run records, and the files in data/raw of the random test images. Writes
`reports/report.html`, `reports/metrics.json` and the two figures that no other stage draws. If an
optional input is missing, the page says so.
"""

import json
from pathlib import Path
from typing import Annotated

from pydantic import Field

from tasks.core.files import write_text
from tasks.core.gap_sentences import largest_gap
from tasks.core.labels import credit_line
from tasks.core.params import Section
from tasks.core.paths import MODELS, Paths
from tasks.core.plotting.html import render
from tasks.core.stages import StageResult
from tasks.report.html.components import TEMPLATES
from tasks.report.inputs import Inputs, load
from tasks.report.page import context
from tasks.report.sample_predictions import choose_images, sample_predictions_figure
from tasks.report.sections.strategies import checkpoint_rules, worst_group_models
from tasks.report.sections.summary import metrics
from tasks.report.training_curves import training_figure


class Params(Section):
    """The section `report` of params.yaml."""

    title: Annotated[str, Field(min_length=1)]
    question: Annotated[str, Field(min_length=1)]
    example_images: Annotated[int, Field(ge=0, le=50)]
    seed: int


def run(params: Params, paths: Paths) -> StageResult:
    """Write the report; raise DataError if the audit's tables or their inputs are missing."""
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
    credit = credit_line(inputs.datasets)
    figures = {name: paths.figures / f"{name}.png" for name in ("example_images", "training")}
    chosen = choose_images(inputs.predictions, params.example_images, params.seed)
    sample_predictions_figure(paths, inputs.predictions, chosen, credit, figures["example_images"])
    training_figure(
        inputs.histories,
        worst_group_models(inputs),
        checkpoint_rules(inputs),
        credit,
        figures["training"],
    )
    return figures


def _tracked(inputs: Inputs) -> dict[str, float]:
    """Return the base model's largest gaps, as fractions."""
    gaps = {
        "largest_gap": largest_gap(inputs.gaps, MODELS[0], single_emotions=False),
        "largest_gap_of_an_emotion": largest_gap(inputs.gaps, MODELS[0], single_emotions=True),
    }
    return {name: float(-row["gap"]) for name, row in gaps.items() if row is not None}
