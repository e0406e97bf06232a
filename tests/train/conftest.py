"""A small made-up cohort whose emotions are marks on noise: quick to learn, quick to make."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.core.imaging.shards import encode_png, write_shards
from tasks.core.params import load_yaml
from tasks.core.paths import Paths
from tasks.core.tables import write_table
from tasks.core.training.data.dataset import ImageDataset
from tasks.core.training.data.pixel_cache import RowFile
from tasks.core.training.trainer import ValidationResult
from tasks.finetune import stage
from tasks.train import initial_model
from tasks.train import stage as train_stage

EMOTIONS = ("anger", "happiness", "neutral")
_PARAMS = load_yaml(Path(__file__).parents[2] / "params.yaml")
_SMALL = {"epochs": 3, "batch_size": 8, "device": "cpu", "precision": "float32"}


@pytest.fixture
def train_params() -> Callable[..., initial_model.TrainParams]:
    """Section `train` of params.yaml for small pictures, with overrides."""
    small = {**_PARAMS["train"], **_SMALL, "backbone": "lenet5", "input_size_px": 32}

    def make(**changed: Any) -> initial_model.TrainParams:
        return initial_model.TrainParams.model_validate({**small, **changed})

    return make


@pytest.fixture
def finetune_params() -> Callable[..., stage.Params]:
    """Section `finetune` of params.yaml for small pictures, with overrides.

    `epochs` holds for every strategy; `replay` and `distill` override single keys of theirs.
    """
    section = {**_PARAMS["train"], **_PARAMS["finetune"]}
    section = {key: section[key] for key in stage.Params.model_fields if key in section}

    def make(**changed: Any) -> stage.Params:
        own = {"min_n": 1, **changed}
        pace = {"epochs": changed.get("epochs", _SMALL["epochs"]), "learning_rate": 0.001}
        adults = {"subset": {"age_band": ["adult"]}}
        parts = {
            "head": section["head"] | pace,
            "replay": section["replay"] | pace | adults | own.pop("replay", {}),
            "distill": section["distill"] | pace | own.pop("distill", {}),
        }
        return stage.Params.model_validate({**section, **_SMALL, **parts, **own})

    return make


@pytest.fixture
def images_of(tmp_path: Path) -> Callable[..., ImageDataset]:
    """Pictures from arrays: `(N, S, S, C)` uint8 and `(N,)` targets; all of one group."""

    def make(pixels: np.ndarray, targets: Any, cells: Any = None) -> ImageDataset:
        file = tmp_path / f"pixels-{len(list(tmp_path.glob('pixels-*')))}.npy"
        np.save(file, pixels)
        rows, one_group = np.arange(len(pixels)), np.ones((len(pixels), 1), dtype=bool)
        cells = np.zeros(len(pixels), dtype=np.int64) if cells is None else np.array(cells)
        targets = np.array(targets, dtype=np.int64)
        return ImageDataset(RowFile(file), str(file), rows, targets, one_group, cells)

    return make


@pytest.fixture
def validated() -> Callable[[float], ValidationResult]:
    """An outcome of a validation of which the recall alone matters."""
    return lambda recall: ValidationResult(1.0, recall, recall, np.zeros(1, dtype=np.int64))


@pytest.fixture(autouse=True)
def without_sheets(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the figure of each training (most of a second), but for the tests of it."""
    if "sheet" not in request.node.path.stem:
        monkeypatch.setattr(train_stage, "augmentation_figure", lambda *_: None)


@pytest.fixture
def cohort(tmp_path: Path) -> Paths:
    """Ten adults and ten children in three splits, one picture an emotion each."""
    return write_cohort(tmp_path)


def write_cohort(root: Path) -> Paths:
    paths = Paths(root)
    paths.crop_shards.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows, members = [], []
    for subject in range(20):
        for mark, emotion in enumerate(EMOTIONS):
            image_id = f"{subject:02d}{mark}"
            image = rng.integers(60, 120, (40, 40, 3), dtype=np.uint8)
            image[6 + 11 * mark : 14 + 11 * mark, 8:32] = 230  # symmetric: flips keep the label
            members.append((f"{image_id}.png", encode_png(image)))
            rows.append(
                {
                    "image_id": image_id,
                    "dataset": "made",
                    "subject_id": f"made/{subject:02d}",
                    "subject_known": True,
                    "emotion": emotion,
                    "age_band": "adult" if subject % 2 else "child",
                    "gender": "female" if subject % 4 < 2 else "male",
                    "split": "train" if subject < 12 else "validation" if subject < 16 else "test",
                }
            )
    paths.crop_settings.write_text("{}\n")
    table = pd.DataFrame(rows)
    places = list(write_shards(members, paths.crop_shards, 25))
    for column in ("shard", "offset_bytes", "size_bytes"):
        table[column] = [getattr(place, column) for place in places]
    write_table(table, paths.split)
    return paths
