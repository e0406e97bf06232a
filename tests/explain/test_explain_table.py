"""The tables and the figure of explanations, on explanations made by hand."""

import numpy as np
import pandas as pd
import pytest

from tasks.explain.explanation_figure import draw_cells, figure_texts
from tasks.explain.explanation_table import (
    REGIONS,
    decode,
    encode,
    explanation_rows,
    explanations_table,
    mean_r2,
    region_map,
    summarize,
    weight_map,
)
from tasks.explain.lime_explainer import LimeExplanation
from tasks.explain.overlay import Overlay, positive_heatmap, top_superpixels

SIDE_PX = 32
BY = ["age_band"]


def explanation(weights_by_region, r2_adjusted=0.8):
    """Superpixels that are the parts of the face, weighted by name."""
    segments = region_map(SIDE_PX, 0.25)
    weights = np.array([weights_by_region.get(region, 0.0) for region in REGIONS])
    image = np.full((SIDE_PX, SIDE_PX, 3), 100, dtype=np.uint8)
    return LimeExplanation("fear", 0.9, image, segments, weights, 0.9, r2_adjusted)


def rows_of(found, image_id, age_band="child"):
    return explanation_rows(found, image_id, {"age_band": age_band}, "base", 0.25)


def cells(n_available=(4, 0)):
    return pd.DataFrame(
        {
            "emotion": ["fear"] * len(n_available),
            "age_band": ["child", "adult"][: len(n_available)],
            "n_held_out": [9, 7][: len(n_available)],
            "n_available": list(n_available),
        }
    )


@pytest.mark.parametrize("n", [1, 2, 9, 60])
def test_run_lengths_come_back_as_the_masks(n):
    segments = np.random.default_rng(1).integers(0, n, (SIDE_PX, SIDE_PX))
    for superpixel, text in enumerate(encode(segments, n)):
        assert np.array_equal(decode(text, SIDE_PX), segments == superpixel)


def test_run_lengths_start_with_what_is_outside():
    assert encode(np.array([[1, 0], [0, 1]]), 2) == ["1 2 1", "0 1 2 1"]


def test_a_superpixel_without_pixels_is_outside_alone():
    assert encode(np.zeros((2, 2), dtype=int), 2) == ["0 4", "4"]


def test_the_table_rebuilds_the_map():
    rng = np.random.default_rng(5)
    segments = rng.integers(0, 9, (SIDE_PX, SIDE_PX))
    weights = rng.normal(size=9)
    image = np.zeros((SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
    found = LimeExplanation("fear", 0.9, image, segments, weights, 0.5, 0.4)
    rows = explanations_table([rows_of(found, "a")], BY).sample(frac=1, random_state=1)
    assert np.array_equal(weight_map(rows), weights[segments])
    assert rows["area_share"].sum() == pytest.approx(1)


def test_an_empty_table_has_the_columns_of_a_full_one():
    full = explanations_table([rows_of(explanation({"mouth": 1}), "a")], BY)
    empty = explanations_table([], BY)
    assert list(empty.columns) == list(full.columns)
    assert empty.empty


def test_shares_of_positive_weight_by_region_and_what_chance_would_give():
    table = explanations_table(
        [
            rows_of(explanation({"mouth": 3.0, "eyes": 1.0, "nose": -5.0}), "a"),
            rows_of(explanation({"mouth": 0.2}, r2_adjusted=0.3), "b"),
            rows_of(explanation({"nose": -1.0}), "c"),  # nothing speaks for it: in no mean share
        ],
        BY,
    )
    summary = summarize(cells(), table, BY, "base", min_r2=0.5)
    child = summary.iloc[0]
    assert (child["n_images"], child["n_available"], child["n_low_r2"]) == (3, 4, 1)
    assert child["top_region"] == "mouth"
    assert child["share_mouth"] == pytest.approx((0.75 + 1) / 2)
    assert child["share_eyes"] == pytest.approx(0.25 / 2)
    assert sum(child[f"share_{region}"] for region in REGIONS) == pytest.approx(1)
    assert child["chance_mouth"] == pytest.approx(1 / len(REGIONS))
    adult = summary.iloc[1]
    assert (adult["n_images"], adult["n_low_r2"]) == (0, 0)
    assert pd.isna(adult["share_mouth"])
    assert mean_r2(summary) == pytest.approx(0.9)


def test_only_positive_weight_is_red_and_only_the_largest_is_yellow():
    found = explanation({"mouth": 3.0, "eyes": 1.0, "brows": 0.5, "nose": -5.0})
    heat, top = positive_heatmap(found), top_superpixels(found, 2)
    regions = region_map(SIDE_PX, 0.25)
    heat_of = {region: heat[regions == place].mean() for place, region in enumerate(REGIONS)}
    assert heat_of["mouth"] == 1
    assert heat_of["eyes"] == pytest.approx(1 / 3)
    assert heat_of["nose"] == 0
    assert set(np.unique(regions[top])) == {REGIONS.index("mouth"), REGIONS.index("eyes")}
    overlay = Overlay(num_features=2)
    overlay.add(found)
    overlay.add(explanation({"eyes": 1.0}))
    red, yellow = overlay.panels().red().astype(int), overlay.panels().yellow().astype(int)
    mouth, nose = regions == REGIONS.index("mouth"), regions == REGIONS.index("nose")
    assert (red[mouth][:, 0] - red[mouth][:, 1]).min() > 50
    assert np.ptp(red[nose], axis=1).max() == 0
    assert (yellow[mouth][:, 1] - yellow[mouth][:, 2]).min() > 50
    assert np.ptp(yellow[nose], axis=1).max() == 0


def test_without_positive_weight_nothing_is_marked():
    found = explanation({"nose": -1.0})
    assert not positive_heatmap(found).any()
    assert not top_superpixels(found, 5).any()


def figure_of(summary, overlays, datasets):
    texts = figure_texts("base", summary, 0.5, datasets)
    figure = draw_cells(summary, overlays, BY, 10, texts)
    return figure, " | ".join(" ".join(text.get_text().split()) for text in figure.texts)


def test_the_figure_says_how_many_images_and_whose():
    found = [explanation({"mouth": 1.0}) for _ in range(4)]
    table = explanations_table([rows_of(one, f"i{n}") for n, one in enumerate(found)], BY)
    overlay = Overlay(num_features=2)
    for one in found:
        overlay.add(one)
    summary = summarize(cells(), table, BY, "base", 0.5)
    _, says = figure_of(summary, {("fear", "child"): overlay}, ["drawn", "london"])
    assert "model base" in says
    assert "n = 4 of 10" in says
    assert "none correct of 7" in says
    assert "R² 0.90" in says
    assert "not evidence about children" in says
    assert "DeBruine" in says


def test_a_full_cell_does_not_say_of_ten():
    found = explanation({"mouth": 1.0})
    table = explanations_table([rows_of(found, f"i{n}") for n in range(10)], BY)
    overlay = Overlay(num_features=2)
    for _ in range(10):
        overlay.add(found)
    summary = summarize(cells((12,)), table, BY, "base", 0.5)
    figure, _ = figure_of(summary, {("fear", "child"): overlay}, [])
    assert "n = 10" in [text.get_text() for text in figure.texts]


def test_a_figure_with_no_image_says_so():
    empty = explanations_table([], BY)
    _, says = figure_of(summarize(cells((0, 0)), empty, BY, "base", 0.5), {}, [])
    assert "(n = 0)" in says
    assert "classifies no held-out picture correctly" in says
    _, says = figure_of(summarize(cells()[:0], empty, BY, "base", 0.5), {}, [])
    assert "No picture was held out" in says


@pytest.mark.parametrize("n_emotions", [1, 2, 7, 9])
def test_no_text_leaves_the_figure_or_runs_into_a_cell(n_emotions):
    names = ["anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise", "pain"]
    emotions = [*names, "contempt"][:n_emotions]
    summary = pd.DataFrame(
        [
            {"emotion": emotion, "age_band": group, "n_held_out": 120, "r2_mean": 0.5}
            | {"n_images": 3, "n_low_r2": 1}
            for group in ("east_asian/white_and_more", "adolescent")
            for emotion in emotions
        ]
    )
    overlay = Overlay(num_features=2)
    for _ in range(3):
        overlay.add(explanation({"mouth": 1.0}))
    overlays = {(emotion, "adolescent"): overlay for emotion in emotions}
    figure, _ = figure_of(summary, overlays, ["drawn", "london"])
    figure.canvas.draw()
    width_px, height_px = figure.get_size_inches() * figure.dpi
    cells_at = [artist.get_window_extent() for artist in figure.artists]
    assert len(cells_at) == 2 * len(overlays) + n_emotions + 2  # panels, empty cells, scales
    for text in figure.texts:
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= width_px and box.y0 >= 0 and box.y1 <= height_px
        if "none correct" not in text.get_text():
            assert not any(box.overlaps(cell) for cell in cells_at), text.get_text()
