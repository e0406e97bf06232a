"""What a stage hands back to the runner, which logs it; so that no room imports MLflow."""

from dataclasses import dataclass, field
from pathlib import Path

Series = list[tuple[int, float]]


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
