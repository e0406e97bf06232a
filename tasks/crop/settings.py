"""What finding and cutting a face need to know; light, because it travels to every worker."""

from dataclasses import dataclass
from typing import Literal, Protocol

Resample = Literal["bilinear", "lanczos"]


class DetectorSettings(Protocol):
    """What the detector reads of the params; `Params` and `CropSettings` both have it."""

    @property
    def detect_side_px(self) -> int:
        """Longer side of the copy that is searched first, in pixels."""

    @property
    def upsample(self) -> int:
        """How many times that side is doubled where nothing was found."""

    @property
    def min_score(self) -> float:
        """Detections with a lower score are ignored."""


@dataclass(frozen=True)
class CropSettings:
    """The params of one picture's way; see params.yaml for each."""

    size_px: int
    margin: float
    resample: Resample
    detect_side_px: int
    upsample: int
    min_score: float
