"""Which module carries out each stage, and which section of params.yaml it gets."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tasks.core.paths import STAGE_OUTS, STUDY_OUTS, STUDY_RUN

_PACKAGES = {name: f"tasks.{name}.stage" for name in {full.split("@")[0] for full in STAGE_OUTS}}
MODULES: Mapping[str, str] = {
    **_PACKAGES,
    STUDY_RUN: "tasks.train.trial",
    "study_choose": "tasks.study.stage",
    "study_test": "tasks.study.test_evaluation",
    "study_report": "tasks.report.study.stage",
}
TRAINING = ("train", "finetune", STUDY_RUN)  # what several devices do together
Series = list[tuple[int, float]]


def section_of(stage: str) -> str:
    """Return the section of params.yaml that a stage's `Params` are read from.

    Parameters
    ----------
    stage
        The stage's name without its item.
    """
    return "study" if stage in STUDY_OUTS else stage


def is_stage(name: str, items: list[str]) -> bool:
    """Return whether there is such a stage; any key will do for a run of a study."""
    if name == STUDY_RUN:
        return len(items) == 1
    return "@".join([name, *items]) in {*STAGE_OUTS, *STUDY_OUTS}


@dataclass(frozen=True)
class StageResult:
    """The record of one execution of a stage.

    Attributes
    ----------
    metrics
        Final figures by name (finite floats); names carry direction, as in `valid_recall_score`.
    series
        Curves by name: pairs of step (from 1, e.g. the epoch) and value.
    artifacts
        Files or folders to keep with the run, as absolute paths.
    summary
        One line for the terminal.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    series: dict[str, Series] = field(default_factory=dict)
    artifacts: list[Path] = field(default_factory=list)
    summary: str = ""
