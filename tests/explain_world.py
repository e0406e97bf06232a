"""A small project whose predictions can be explained."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from tasks.core.imaging.shards import encode_png, write_shards
from tasks.core.models.backbones import build_module
from tasks.core.models.checkpoint import empty_seen_table, save_model
from tasks.core.models.spec import ModelSpec
from tasks.core.params import load_section
from tasks.core.paths import CROP_SETTINGS, Paths
from tasks.core.tables import write_table
from tasks.explain.stage import Params

HOUSE = Path(__file__).parents[1]
PARAMS = load_section(HOUSE / "params.yaml", "explain", Params)
OUTS = (
    "data/explanations/base.parquet",
    "reports/tables/lime_base.csv",
    "reports/figures/lime_base.png",
)


def params(**changes):
    small = {"num_samples": 30, "images_per_group": 2, "workers": 1, "device": "cpu"}
    return Params.model_validate(PARAMS.model_dump() | small | changes)


def make_project(root, correct=True):
    """Six subjects with a happy and a neutral picture each; every third was seen in training."""
    paths = Paths(root)
    rng = np.random.default_rng(0)
    rows, members = [], []
    for subject in range(6):
        for emotion in ("happiness", "neutral"):
            image_id = f"{subject:02d}{emotion[:1]}"
            patches = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
            crop = np.repeat(np.repeat(patches, 8, axis=0), 8, axis=1)
            members.append((f"{image_id}.png", encode_png(crop)))
            rows.append(
                {
                    "image_id": image_id,
                    "dataset": "drawn",
                    "subject_id": f"drawn/{subject}",
                    "emotion": emotion,
                    "age_years": 6.0,
                    "age_band": "child",
                    "gender": "female" if subject < 4 else "male",
                    "y_pred": emotion if correct else "fear",
                    "p_happiness": 0.5,
                    "p_neutral": 0.5,
                    "p_fear": 0.0,
                    "seen_in_training": subject % 3 == 0,
                }
            )
    paths.crop_shards.mkdir(parents=True)
    (paths.crop_shards / CROP_SETTINGS).write_text('{"margin": 0.25}')
    places = list(write_shards(members, paths.crop_shards, images_per_shard=5))
    table = pd.DataFrame(rows).join(pd.DataFrame(places))
    write_table(table, paths.predictions("base"))
    torch.manual_seed(0)
    spec = ModelSpec(
        architecture="lenet5",
        labels=("happiness", "neutral", "fear"),
        input_size_px=32,
        color="rgb",
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        version="",
        source="test",
    )
    save_model(paths.model("base"), build_module("lenet5", 3, 3), spec, empty_seen_table())
    return paths
