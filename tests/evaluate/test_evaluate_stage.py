from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tasks.core.errors import ModelError
from tasks.core.imaging import shards
from tasks.core.imaging.shards import encode_png, read_crops, write_shards
from tasks.core.models.backbones import build_module
from tasks.core.models.checkpoint import SEEN_COLUMNS, Skipped, save_model, write_skipped
from tasks.core.models.spec import ModelSpec
from tasks.core.paths import Paths
from tasks.core.tables import read_schema, read_table, write_table
from tasks.evaluate import batch_prediction
from tasks.evaluate.stage import Params, run

SPEC = ModelSpec(
    architecture="compact",
    labels=("happiness", "anger", "neutral"),  # not the vocabulary's order
    input_size_px=32,
    color="rgb",
    mean=(0.5,) * 3,
    std=(0.25,) * 3,
    version="",
    source="trained here",
)
PARAMS = Params(batch_size=4, device="cpu")


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(tmp_path)
    paths.crop_shards.mkdir(parents=True)
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "image_id": [f"{index:02d}" for index in range(10)],
            "subject_id": [f"made/{index // 2}" for index in range(10)],
            "emotion": ["anger", "happiness", "neutral", "pain", "anger"] * 2,
            "split": ["train"] * 4 + ["validation"] * 2 + ["test"] * 4,
        }
    )
    images = rng.integers(0, 256, (10, 40, 40, 3), dtype=np.uint8)
    members = [(f"{i}.png", encode_png(image)) for i, image in enumerate(images)]
    places = list(write_shards(members, paths.crop_shards, 6))
    for column in ("shard", "offset_bytes", "size_bytes"):
        table[column] = [getattr(place, column) for place in places]
    write_table(table, paths.split)
    torch.manual_seed(0)
    seen = pd.DataFrame(
        [["00", "made/0", "train", "train"], ["04", "made/2", "train", "validation"]],
        columns=list(SEEN_COLUMNS),
    )
    save_model(paths.model("base"), build_module("compact", 3, 3), SPEC, seen)
    return paths


def test_every_image_has_one_prediction(paths):
    run(PARAMS, paths, "base")
    table, predictions = read_table(paths.split), read_table(paths.predictions("base"))
    pd.testing.assert_frame_equal(predictions[table.columns], table)
    added = [column for column in predictions.columns if column not in table.columns]
    assert added == [
        "model",
        "model_version",
        "y_pred",
        "p_anger",
        "p_happiness",
        "p_neutral",
        "seen_in_training",
        "is_target_group",
    ]
    probabilities = predictions[["p_anger", "p_happiness", "p_neutral"]]
    assert (probabilities.dtypes == np.float32).all()
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    assert list("p_" + predictions["y_pred"]) == list(probabilities.idxmax(axis=1))
    assert set(predictions["model"]) == {"base"}
    assert len(predictions["model_version"][0]) == 12


def test_probabilities_belong_to_their_labels_and_images(paths):
    run(PARAMS, paths, "base")
    predictions = read_table(paths.predictions("base"))
    from tasks.core.models.predictor import EmotionClassifier

    recognizer = EmotionClassifier.load(paths.model("base"), "cpu")
    for row, crop in zip(
        predictions.itertuples(), read_crops(predictions, paths.crop_shards), strict=True
    ):
        happiness, anger, neutral = recognizer.predict(crop[None])[0]
        assert np.allclose(
            [row.p_anger, row.p_happiness, row.p_neutral], [anger, happiness, neutral], atol=1e-5
        )


def test_seen_marks_every_image_of_a_subject_that_was_used(paths):
    run(PARAMS, paths, "base")
    predictions = read_table(paths.predictions("base"))
    seen = predictions.loc[predictions["seen_in_training"], "image_id"]
    assert list(seen) == ["00", "01", "04", "05"]  # subjects 0 and 2, not only the listed pictures
    assert predictions["seen_in_training"].dtype == bool


def test_fine_tuned_on_marks_the_groups_own_images_and_none_that_was_replayed(paths):
    seen = pd.DataFrame(
        [
            ["00", "made/0", "train", "train"],
            ["01", "made/0", "replay", "train"],
            ["02", "made/1", "finetune", "train"],
            ["04", "made/2", "finetune", "validation"],
        ],
        columns=list(SEEN_COLUMNS),
    )
    save_model(paths.model("replay"), build_module("compact", 3, 3), SPEC, seen)
    run(PARAMS, paths, "replay")
    predictions = read_table(paths.predictions("replay"))
    assert list(predictions.loc[predictions["is_target_group"], "image_id"]) == ["02"]
    assert list(predictions.loc[predictions["seen_in_training"], "image_id"]) == [
        *("00", "01", "02", "03", "04", "05")
    ]
    assert predictions["is_target_group"].dtype == bool


def test_a_prediction_does_not_depend_on_how_many_images_there_are(paths):
    run(PARAMS, paths, "base")
    all_rows = read_table(paths.predictions("base"))
    write_table(read_table(paths.split).iloc[:7], paths.split)  # 4 + 3: the last batch is filled
    run(PARAMS, paths, "base")
    some = read_table(paths.predictions("base"))
    pd.testing.assert_frame_equal(some, all_rows.iloc[:7], check_exact=True)


def test_same_input_same_bytes(paths):
    run(PARAMS, paths, "base")
    first = paths.predictions("base").read_bytes()
    run(PARAMS, paths, "base")
    assert paths.predictions("base").read_bytes() == first


def test_test_accuracy_leaves_out_labels_the_model_lacks(paths):
    result = run(PARAMS, paths, "base")
    predictions = read_table(paths.predictions("base"))
    comparable = predictions.query("split == 'test' and emotion != 'pain'")
    expected = (comparable["emotion"] == comparable["y_pred"]).mean()
    assert result.metrics["test_accuracy"] == pytest.approx(expected)
    assert result.metrics["pictures_of_unknown_label"] == 2
    assert result.metrics["seen_in_training"] == 4


def test_crops_are_read_batch_by_batch(paths, monkeypatch):
    held: list[int] = []
    real = shards.read_crops

    def counted(table, folder):
        for number, crop in enumerate(real(table, folder)):
            held.append(number)
            yield crop

    class Spy:
        batch_size, labels = 4, ("anger",)

        def predict(self, crops):
            asked.append((len(crops), len(held)))
            return np.ones((len(crops), 1), dtype=np.float32)

    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(batch_prediction, "read_crops", counted)
    batch_prediction.predict_crops(Spy(), read_table(paths.split), paths.crop_shards)
    assert asked == [(4, 4), (4, 8), (4, 10)]  # size of the batch, crops read so far


def test_a_missing_model_is_one_line(paths):
    with pytest.raises(ModelError, match="no model here"):
        run(PARAMS, paths, "finetuned")


def test_a_skipped_model_gives_the_same_columns_and_no_row(paths):
    run(PARAMS, paths, "base")
    write_skipped(
        paths.model("head"), Skipped("finetune.strategies does not name head", SPEC.labels)
    )
    result = run(PARAMS, paths, "head")
    empty, full = (read_schema(paths.predictions(name)) for name in ("head", "base"))
    assert empty.equals(full)
    assert read_table(paths.predictions("head")).empty
    assert "does not name head" in result.summary
