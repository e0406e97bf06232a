"""What finding and cutting a face need to know; light, because it travels to every worker."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from tasks.core.errors import ModelError
from tasks.core.paths import CROP_SETTINGS

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
        return CropSettings(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ModelError(f"{path}: missing; how faces are to be cut for it is unknown") from None
    except (ValueError, TypeError) as error:
        raise ModelError(f"{path}: does not say how faces are cut ({error})") from None
