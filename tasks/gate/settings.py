"""Section `promote` of params.yaml: how the gate decides."""

from typing import Annotated, Literal

from pydantic import Field

from tasks.core.params import Section

NotShown = Literal["promote", "wait_beyond_margin", "wait"]
Share = Annotated[float, Field(ge=0, le=1)]
Values = Annotated[list[str], Field(min_length=1)]


class Margins(Section):
    """How much worse a new model may do than the one in use, where it is shown to be no worse."""

    overall: Share
    group: Share
    calibration: Share
    robustness: Share


class Floors(Section):
    """What the first model needs: two recalls from below; Brier score and flips from above."""

    overall: Share
    worst_group: Share
    calibration: Annotated[float, Field(ge=0, le=2)]
    robustness: Share


class Changes(Section):
    """Small changes of a crop under which an answer should stay."""

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
    floors: Floors
    changes: Changes
    require_approval: bool
    device: str
    batch_size: Annotated[int, Field(ge=1)]
