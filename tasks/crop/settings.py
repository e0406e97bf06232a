"""Settings for finding and cropping a face; a light module, because every worker imports it."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from tasks.core.errors import ModelError
from tasks.core.paths import CROP_SETTINGS
from tasks.core.text import one_line

Resample = Literal["bilinear", "lanczos"]
# As models of earlier versions have them.
_FORMER_NAMES = {"detect_side_px": "detector_side_px", "upsample": "max_upsamples"}


@dataclass(frozen=True)
class CropSettings:
    """The parameters that decide how one image is cropped; see params.yaml."""

    size_px: int
    margin: float
    resample: Resample
    detector_side_px: int  # longer side of the copy that is searched first
    max_upsamples: int  # how many times that side is doubled if nothing was found
    min_score: float  # detections with a lower score are ignored


def model_crop_settings(folder: Path) -> CropSettings:
    """Read the crop settings of a model from the `crop.json` in its folder.

    Raises ModelError if the file is missing or damaged, because other crops would give other
    predictions.
    """
    path = folder / CROP_SETTINGS
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        settings = CropSettings(**{_FORMER_NAMES.get(name, name): values[name] for name in values})
        _assert_usable(settings)
    except FileNotFoundError:
        raise ModelError(f"{path}: missing; how faces are to be cut for it is unknown") from None
    except (ValueError, TypeError, RecursionError, OSError) as error:
        reason = one_line(error)
        raise ModelError(f"{path}: does not say how faces are cut ({reason})") from None
    return settings


def _assert_usable(settings: CropSettings) -> None:
    """Raise ValueError for settings outside the bounds of the stage `crop`."""
    bounds = {"size_px": (16, 1024), "detector_side_px": (80, 4096), "max_upsamples": (0, 3)}
    for name, (lowest, highest) in bounds.items():
        value = getattr(settings, name)
        if type(value) is not int or not lowest <= value <= highest:
            raise ValueError(f"{name} must be a whole number from {lowest} to {highest}")
    for name, highest in (("margin", 2.0), ("min_score", math.inf)):
        value = getattr(settings, name)
        if type(value) not in (int, float) or not math.isfinite(value) or value > highest:
            raise ValueError(f"{name} must be a number of at most {highest:g}")
    if settings.margin < 0 or settings.resample not in get_args(Resample):
        raise ValueError(f"margin must not be negative, resample one of {get_args(Resample)}")
