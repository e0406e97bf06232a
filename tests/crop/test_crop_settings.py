"""`crop.json` of a model that came from elsewhere: settings that can be used, or one line."""

import json

import pytest

from tasks.core.errors import ModelError
from tasks.crop.settings import CropSettings, model_crop_settings

FULL = {
    "size_px": 112,
    "margin": 0.2,
    "resample": "bilinear",
    "detector_side_px": 640,
    "max_upsamples": 1,
    "min_score": 0.0,
}


def test_settings_are_read_back(tmp_path):
    (tmp_path / "crop.json").write_text(json.dumps(FULL))
    assert model_crop_settings(tmp_path).size_px == 112


def test_settings_of_an_earlier_version_are_read(tmp_path):
    former = {"detector_side_px": "detect_side_px", "max_upsamples": "upsample"}
    written = {former.get(name, name): value for name, value in FULL.items()}
    (tmp_path / "crop.json").write_text(json.dumps(written))
    assert model_crop_settings(tmp_path) == CropSettings(**FULL)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (json.dumps({**FULL, "size_px": 10**9}), "size_px must be a whole number from 16 to 1024"),
        (json.dumps({**FULL, "max_upsamples": True}), "max_upsamples must be"),
        (json.dumps({**FULL, "margin": float("nan")}), "margin must be"),
        (json.dumps({**FULL, "margin": 1e9}), "margin must be"),
        (json.dumps({**FULL, "margin": -1}), "margin must not be negative"),
        (json.dumps({**FULL, "resample": "\x1b[2J"}), "resample one of"),
        (json.dumps({**FULL, "min_score": "0"}), "min_score must be"),
        (json.dumps({**FULL, "\x1b[2J\n": 1}), "does not say how faces are cut"),
        ("[" * 100_000, "does not say how faces are cut"),
        ("[]", "does not say how faces are cut"),
    ],
)
def test_settings_without_sense_are_one_line(tmp_path, text, named):
    (tmp_path / "crop.json").write_text(text)
    with pytest.raises(ModelError, match=named) as error:
        model_crop_settings(tmp_path)
    assert str(error.value).isprintable()
