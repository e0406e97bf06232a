"""A small project with a run behind it, as registering reads it: what several tests write with.

The tables in tests/register/data are those of a whole run on the drawn cohort, its fine-tuned
model's rows alone.
"""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import torch

from flows.presets import preset_text
from tasks.core.files import write_text
from tasks.core.models.backbones import build_module
from tasks.core.models.checkpoint import save_model
from tasks.core.models.spec import ModelSpec
from tasks.core.paths import Paths
from tasks.core.tables import write_csv, write_table
from tasks.crop.settings import CropSettings
from tasks.draw.action_units import Style
from tasks.draw.plan import COHORTS, ImageName, RenderSpec
from tasks.draw.render import RenderJob, draw_image

LABELS = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
CROP = CropSettings(96, 0.25, "bilinear", 320, 2, 0.0)
TABLES = Path(__file__).parent / "register" / "data"
PRESET = Path(__file__).parents[1] / "presets" / "quick.yaml"


def write_small_model(folder: Path, seed: int, architecture: str = "compact") -> ModelSpec:
    """A model's folder as `choose` writes it, with random weights that differ by seed."""
    torch.manual_seed(seed)
    spec = ModelSpec(
        architecture=architecture,
        labels=LABELS,
        input_size_px=64,
        color="rgb",
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        version="",
        source="trained here",
    )
    seen = pd.DataFrame(
        [(f"{n:016x}", f"drawn/p{n}", "train", "train") for n in range(3)],
        columns=["image_id", "subject_id", "stage", "role"],
    )
    shutil.rmtree(folder, ignore_errors=True)
    spec = save_model(folder, _module_that_tells_apart(architecture), spec, seen)
    write_text(folder / "crop.json", json.dumps(asdict(CROP)))
    return spec


def _module_that_tells_apart(architecture: str) -> torch.nn.Module:
    """Random weights, with batch norms that have seen something: else all answers are alike."""
    module = build_module(architecture, len(LABELS), 3, 64).train()
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = 1.0  # the next pictures' statistics alone
    with torch.no_grad():
        module(torch.randn(8, 3, 64, 64) + torch.randn(8, 3, 1, 1))
    return module.eval()


def split_table() -> pd.DataFrame:
    rows = [
        {
            "image_id": f"{n:016x}",
            "subject_id": f"drawn/p{n}",
            "subject_known": True,
            "dataset": "drawn",
            "batch": "spring" if n % 5 == 0 else "",
            "age_band": ("child", "adolescent", "adult")[n % 3],
            "age_source": "recorded",
            "gender": ("female", "male")[n % 2],
            "emotion": LABELS[n % 7],
            "split": ("train", "validation", "test")[min(n // 12, 2)],
        }
        for n in range(42)
    ]
    return pd.DataFrame(rows)


def make_project(root: Path) -> Paths:
    """The files that registering reads; the model's weights are random."""
    paths = Paths(root)
    paths.params.parent.mkdir(parents=True, exist_ok=True)
    paths.params.write_text(preset_text(PRESET.parents[1], PRESET), encoding="utf-8")
    write_table(split_table(), paths.split)
    for table in TABLES.glob("*.csv"):
        write_csv(pd.read_csv(table), paths.tables / table.name)
    write_small_model(paths.model("finetuned"), seed=1)
    return paths


def draw_faces(n: int, size_px: int = 256) -> list[bytes]:
    """JPEGs of drawn adults, one face each."""
    images = []
    for number in range(n):
        subject = COHORTS["adult"][1] + number
        name = ImageName(f"D{subject:04d}", 30, ("female", "male")[number % 2], "neutral", 1)
        style = Style(intensity_mean=0.8, intensity_sd=0.1, unit_mixing=0.0)
        order = RenderJob(RenderSpec(name, "adult", subject), style, 20261121, size_px)
        images.append(draw_image(order).jpeg)
    return images
