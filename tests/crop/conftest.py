"""Faces for the tests of the crop room: drawn ones always, photographs where there are any."""

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.core.params import load_section
from tasks.crop.settings import CropSettings
from tasks.crop.stage import Params
from tasks.draw.action_units import Style
from tasks.draw.plan import COHORTS, ImageName, RenderSpec
from tasks.draw.render import RenderJob, draw_image

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def draw_face() -> Callable[..., np.ndarray]:
    """A function from a subject's number (and size) to a drawn adult face, (H, W, 3) uint8."""
    drawn: dict[tuple[int, int], np.ndarray] = {}

    def draw(number: int = 0, size_px: int = 256) -> np.ndarray:
        if (number, size_px) not in drawn:
            subject = COHORTS["adult"][1] + number
            gender = ("female", "male")[number % 2]
            name = ImageName(f"D{subject:04d}", 30, gender, "neutral", 1)
            style = Style(intensity_mean=0.8, intensity_sd=0.1, unit_mixing=0.0)
            order = RenderJob(RenderSpec(name, "adult", subject), style, 20261121, size_px)
            image = Image.open(io.BytesIO(draw_image(order).jpeg))
            drawn[number, size_px] = np.asarray(image.convert("RGB"))
        return drawn[number, size_px]

    return draw


@pytest.fixture(scope="session")
def photographs() -> list[Path]:
    """The London photographs, all faces with a known owner."""
    if "AFFECTGAP_ASSETS" not in os.environ:
        pytest.skip("AFFECTGAP_ASSETS is unset: no photographs here")
    folder = Path(os.environ["AFFECTGAP_ASSETS"]) / "london"
    return sorted(folder.glob("*/[0-9]*.jpg"))


@pytest.fixture
def params() -> Params:
    return load_section(ROOT / "params.yaml", "crop", Params)


@pytest.fixture
def settings() -> CropSettings:
    """Fixed here, so that tuning params.yaml breaks no test of the algorithm."""
    return CropSettings(
        size_px=96,
        margin=0.25,
        resample="bilinear",
        detector_side_px=320,
        max_upsamples=2,
        min_score=0.0,
    )


@pytest.fixture(scope="session")
def noise() -> np.ndarray:
    """A picture without a face."""
    return np.random.default_rng(5).integers(0, 256, (200, 240, 3), dtype=np.uint8)
