"""Section `promote` of params.yaml: how the gate decides."""

from typing import Annotated, Literal

from pydantic import Field

from tasks.core.params import Section

NotShown = Literal["promote", "wait_beyond_margin", "wait"]
Share = Annotated[float, Field(ge=0, le=1)]
Values = Annotated[list[str], Field(min_length=1)]


class Margins(Section):
    """Non-inferiority margins: how much worse than the current model the new one may be."""

    overall: Share
    group: Share
    calibration: Share
    robustness: Share


class AbsoluteLimits(Section):
    """Absolute limits: lower ones of the recalls, upper ones of the Brier score and the flips."""

    overall: Share
    worst_group: Share
    calibration: Annotated[float, Field(ge=0, le=2)]
    robustness: Share


class Changes(Section):
    """Perturbations of a crop that should not change the prediction."""

    brightness: Share
    shift: Annotated[float, Field(ge=0, le=0.5)]
    jpeg_quality: Annotated[int, Field(ge=1, le=100)]


class Params(Section):
    """Section `promote`."""

    by: Annotated[list[str], Field(min_length=1)]
    protected: list[Annotated[dict[str, Values], Field(min_length=1)]]
    min_n: Annotated[int, Field(ge=1)]
    min_subjects: Annotated[int, Field(ge=2)]
    error_rate: Annotated[float, Field(gt=0, lt=0.5)]
    not_shown: NotShown
    not_judged: Literal["promote", "wait"]
    confidence: Annotated[float, Field(gt=0, lt=1)]
    resamples: Annotated[int, Field(ge=100)]
    seed: int
    margins: Margins
    absolute_limits: AbsoluteLimits
    perturbations: Changes
    require_approval: bool
    device: str
    batch_size: Annotated[int, Field(ge=1)]
