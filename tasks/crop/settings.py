"""What finding and cutting a face need to know; light, because it travels to every worker."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, get_args

from tasks.core.errors import ModelError
from tasks.core.paths import CROP_SETTINGS
from tasks.core.text import one_line

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


def settings_of_model(folder: Path) -> CropSettings:
    """Read how the crops were cut that a model was trained (or tried) on.

    Parameters
    ----------
    folder
        The model's folder, with its `crop.json`.

    Raises
    ------
    ModelError
        One line where the file is missing or damaged: another crop would give other answers.
    """
    path = folder / CROP_SETTINGS
    try:
        settings = CropSettings(**json.loads(path.read_text(encoding="utf-8")))
        _assert_usable(settings)
    except FileNotFoundError:
        raise ModelError(f"{path}: missing; how faces are to be cut for it is unknown") from None
    except (ValueError, TypeError, RecursionError, OSError) as error:
        reason = one_line(error)
        raise ModelError(f"{path}: does not say how faces are cut ({reason})") from None
    return settings


def _assert_usable(settings: CropSettings) -> None:
    """Raise ValueError for settings that the stage `crop` does not allow; its bounds are these."""
    bounds = {"size_px": (16, 1024), "detect_side_px": (80, 4096), "upsample": (0, 3)}
    for name, (least, most) in bounds.items():
        value = getattr(settings, name)
        if type(value) is not int or not least <= value <= most:
            raise ValueError(f"{name} must be a whole number from {least} to {most}")
    for name, most in (("margin", 2.0), ("min_score", math.inf)):
        value = getattr(settings, name)
        if type(value) not in (int, float) or not math.isfinite(value) or value > most:
            raise ValueError(f"{name} must be a number of at most {most:g}")
    if settings.margin < 0 or settings.resample not in get_args(Resample):
        raise ValueError(f"margin must not be negative, resample one of {get_args(Resample)}")
