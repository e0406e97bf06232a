"""The module of each stage, its section of params.yaml, and the result that it returns."""

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
TRAINING = ("train", "finetune", STUDY_RUN)  # stages that can run on several devices
Series = list[tuple[int, float]]


def section_of(stage: str) -> str:
    """Return the section of params.yaml for a stage's name without its item."""
    return "study" if stage in STUDY_OUTS else stage


def is_stage(name: str, items: list[str]) -> bool:
    """Return whether a stage exists; runs of a study may have any key."""
    if name == STUDY_RUN:
        return len(items) == 1
    return "@".join([name, *items]) in {*STAGE_OUTS, *STUDY_OUTS}


@dataclass(frozen=True)
class StageResult:
    """The result of one execution of a stage, to be logged."""

    metrics: dict[str, float] = field(default_factory=dict)  # finite
    series: dict[str, Series] = field(default_factory=dict)  # pairs of step (from 1) and value
    artifacts: list[Path] = field(default_factory=list)  # files or folders, absolute paths
    summary: str = ""  # one line for the terminal
