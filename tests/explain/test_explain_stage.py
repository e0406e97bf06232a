"""The stage on a small project: its outputs, whatever the number of workers."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from explain_world import OUTS, make_project, params
from PIL import Image

from tasks.core.models.predictor import EmotionClassifier
from tasks.core.tables import read_table
from tasks.explain import parallel_explain
from tasks.explain.explanation_table import weight_map
from tasks.explain.overlay import draw_explanation
from tasks.explain.stage import run

HOUSE = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    paths = make_project(tmp_path_factory.mktemp("explain"))
    return paths, run(params(), paths, "base")


def test_the_table_holds_every_chosen_image_and_rebuilds_its_map(project):
    paths, result = project
    table = read_table(paths.explanations("base"))
    predictions = read_table(paths.predictions("base")).set_index("image_id")
    images = table["image_id"].unique()
    assert len(images) == result.metrics["pictures"] == 8
    assert not predictions.loc[images, "seen_in_training"].any()
    for _, rows in table.groupby("image_id"):
        assert rows["superpixel"].tolist() == list(range(len(rows)))
        assert weight_map(rows).shape == (32, 32)
        assert rows["area_share"].sum() == pytest.approx(1)


def test_the_summary_has_a_row_a_cell(project):
    paths, _ = project
    summary = pd.read_csv(paths.tables / "lime_base.csv").set_index(["gender", "emotion"])
    assert summary.loc[("female", "happiness"), ["n_available", "n_images"]].tolist() == [2, 2]


@pytest.mark.slow
def test_two_workers_write_the_same_bytes_as_this_process(project, tmp_path, monkeypatch):
    paths, _ = project
    monkeypatch.setattr(parallel_explain, "_FEW", 0)
    again = make_project(tmp_path / "again")
    run(params(workers=2), again, "base")
    for out in OUTS:
        assert again.at(out).read_bytes() == paths.at(out).read_bytes(), out


def test_a_model_that_reads_nothing_gives_empty_tables_and_a_figure_that_says_so(tmp_path):
    paths = make_project(tmp_path / "none", correct=False)
    result = run(params(), paths, "base")
    assert read_table(paths.explanations("base")).empty
    summary = pd.read_csv(paths.tables / "lime_base.csv")
    assert summary["n_images"].tolist() == [0, 0, 0, 0]
    assert summary["n_held_out"].sum() == 8
    assert result.metrics["pictures"] == 0
    with Image.open(paths.figures / "lime_base.png") as figure:
        assert figure.width >= 900


def test_predict_gets_a_image_twice_as_wide(project):
    paths, _ = project
    recognizer = EmotionClassifier.load(paths.model("base"), "cpu")
    crop = np.random.default_rng(1).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    drawn = draw_explanation(recognizer, crop, params())
    assert drawn.dtype == np.uint8
    assert drawn.shape == (64, 132, 3)
    assert np.array_equal(drawn, draw_explanation(recognizer, crop, params()))


@pytest.mark.parametrize("by", [[], ["gender", "gender"], ["emotion"]])
def test_groups_that_make_no_cells_are_refused(by):
    with pytest.raises(ValueError, match="each once"):
        params(by=by)
