"""LIME's weights: the package's own, in the right place, and the same every time."""

import numpy as np
import pytest
import torch
from lime.lime_image import LimeImageExplainer

from tasks.core.models.backbones import build_module
from tasks.core.models.predictor import EmotionClassifier
from tasks.core.models.spec import ModelSpec
from tasks.explain.explanation_table import REGIONS, region_map, superpixel_regions
from tasks.explain.lime_explainer import LimeSettings, explain, explain_image, segment

SIDE_PX = 48
LABELS = ("happiness", "neutral")
MARGIN = 0.25
MOUTH = region_map(SIDE_PX, MARGIN) == REGIONS.index("mouth")


def settings(**changes):
    values = {
        "superpixels": "slic",
        "superpixel_side_px": 96,
        "slic": {"n_segments": 40, "compactness": 10, "sigma": 1},
        "quickshift": {"kernel_size": 1.5, "max_dist": 10, "ratio": 0.5},
        "num_samples": 150,
        "hide_color": "gray",
        "kernel_width": 0.25,
        "batch_size": 50,
        "num_features": 5,
        "seed": 3,
    }
    return LimeSettings.model_validate(values | changes)


def bright_image(seed=0, side_px=SIDE_PX):
    """Patches that are brighter than the gray that hides them."""
    patches = np.random.default_rng(seed).integers(180, 256, (8, 8, 3)).astype(np.uint8)
    return np.repeat(np.repeat(patches, side_px // 8, axis=0), side_px // 8, axis=1)


def blocks(side_px=SIDE_PX, across=6):
    """Square superpixels, numbered row by row."""
    place = np.arange(side_px) * across // side_px
    return place[:, None] * across + place[None, :]


def looks_at(mask):
    """A model whose first answer is the brightness inside a mask."""

    def classify(images):
        share = images[:, mask].mean(axis=(1, 2)) / 255
        return np.stack([share, 1 - share], axis=1)

    return classify


def random_recognizer(color):
    torch.manual_seed(0)
    channels = 3 if color == "rgb" else 1
    spec = ModelSpec(
        architecture="lenet5",
        labels=LABELS,
        input_size_px=32,
        color=color,
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        version="v",
        source="test",
    )
    return EmotionClassifier(spec, build_module("lenet5", 2, channels), torch.device("cpu"))


@pytest.mark.parametrize("hide", ["superpixel_mean", "gray"])
def test_weights_are_those_of_the_package_bit_for_bit(hide):
    image, segments = bright_image(), blocks()
    ours = explain(
        looks_at(MOUTH), LABELS, image, segments, "happiness", settings(hide_color=hide), 9
    )
    package = LimeImageExplainer(feature_selection="none", random_state=9).explain_instance(
        image,
        looks_at(MOUTH),
        labels=(0,),
        top_labels=None,
        hide_color=None if hide == "superpixel_mean" else 128,
        num_samples=150,
        batch_size=50,
        segmentation_fn=lambda _: segments,
        random_seed=0,
    )
    assert dict(enumerate(ours.weights)) == dict(package.local_exp[0])
    assert ours.r2 == package.score


def test_a_model_that_reads_the_mouth_is_seen_to_read_the_mouth():
    crop = bright_image(side_px=96)
    segments = segment(crop, SIDE_PX, settings(), 0)
    image = crop[::2, ::2]
    found = explain(looks_at(MOUTH), LABELS, image, segments, "happiness", settings(), 1)
    in_mouth = np.array(superpixel_regions(segments, region_map(SIDE_PX, MARGIN))) == "mouth"

    def share(weights):
        positive = np.maximum(weights, 0)
        return positive[in_mouth].sum() / positive.sum()

    rng = np.random.default_rng(0)
    shuffled = [share(rng.permutation(found.weights)) for _ in range(500)]
    assert share(found.weights) > 0.6
    assert share(found.weights) > np.quantile(shuffled, 0.99)
    assert found.r2_adjusted > 0.8


def test_what_speaks_for_one_answer_speaks_against_the_other():
    image, segments = bright_image(), blocks()
    first = explain(looks_at(MOUTH), LABELS, image, segments, "happiness", settings(), 1)
    second = explain(looks_at(MOUTH), LABELS, image, segments, "neutral", settings(), 1)
    assert np.allclose(first.weights, -second.weights)


@pytest.mark.parametrize("method", ["slic", "quickshift"])
def test_superpixels_are_numbered_from_0_without_gaps(method):
    rng = np.random.default_rng(2)
    smooth = np.kron(rng.integers(0, 256, (12, 12, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    for side_px in (32, 96, 200):
        segments = segment(smooth, side_px, settings(superpixels=method), 0)
        assert segments.shape == (side_px, side_px)
        assert segments[0, 0] == 0
        assert np.array_equal(np.unique(segments), np.arange(segments.max() + 1))
        assert segments.max() > 3


@pytest.mark.parametrize("superpixel", [0, 35])
def test_the_first_and_the_last_superpixel_are_hidden_too(superpixel):
    segments = blocks()
    found = explain(
        looks_at(segments == superpixel),
        LABELS,
        bright_image(),
        segments,
        "happiness",
        settings(),
        1,
    )
    assert found.weights.argmax() == superpixel
    assert found.weights[superpixel] > 5 * np.delete(np.abs(found.weights), superpixel).max()


def test_an_answer_that_nothing_changes_has_no_weights():
    found = explain(
        lambda images: np.full((len(images), 2), 0.5),
        LABELS,
        bright_image(),
        blocks(),
        "happiness",
        settings(),
        1,
    )
    assert not found.weights.any()
    assert found.r2 == 0


def test_adjusting_for_the_number_of_superpixels_takes_back_what_noise_fits():
    rng = np.random.default_rng(4)

    def noise(images):
        share = rng.random(len(images))
        return np.stack([share, 1 - share], axis=1)

    fits = [
        explain(
            noise, LABELS, bright_image(), blocks(), "happiness", settings(num_samples=80), seed
        )
        for seed in range(12)
    ]
    assert np.mean([fit.r2 for fit in fits]) > 0.3
    assert abs(np.mean([fit.r2_adjusted for fit in fits])) < 0.15


@pytest.mark.parametrize(
    ("hide", "color"),
    [
        ("gray", (128, 128, 128)),
        ("picture_mean", (100, 50, 25)),
        ("superpixel_mean", (200, 100, 50)),
    ],
)
def test_what_hides_a_superpixel(hide, color):
    image = np.zeros((SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
    left = np.zeros((SIDE_PX, SIDE_PX), dtype=bool)
    left[:, : SIDE_PX // 2] = True
    image[left] = (200, 100, 50)
    seen = []

    def classify(images):
        seen.extend(images)
        return np.full((len(images), 2), 0.5)

    explain(classify, LABELS, image, 1 - left, "happiness", settings(hide_color=hide), 1)
    in_left = {tuple(int(v) for v in copy[0, 0]) for copy in seen}
    assert in_left == {(200, 100, 50), color}
    assert np.array_equal(seen[0], image)


@pytest.mark.parametrize("color", ["rgb", "gray"])
def test_a_image_is_explained_at_the_models_own_size_and_answer(color):
    recognizer = random_recognizer(color)
    crop = bright_image(side_px=64)
    found = explain_image(recognizer, crop, settings(num_samples=40))
    asked = recognizer.predict(crop[None])[0]
    assert found.image.shape == (32, 32, 3)
    assert found.segments.shape == (32, 32)
    assert found.emotion == LABELS[int(asked.argmax())]
    assert found.probability == pytest.approx(float(asked.max()), abs=0.01)


def test_weights_follow_from_the_image_and_the_seed_alone():
    recognizer = random_recognizer("rgb")
    first, second = bright_image(1, 64), bright_image(2, 64)

    def weights(crop, key, seed=3):
        chosen = settings(num_samples=40, seed=seed)
        return explain_image(recognizer, crop, chosen, "neutral", key).weights

    alone = weights(first, "a")
    weights(second, "b")
    assert np.array_equal(alone, weights(first, "a"))
    assert not np.array_equal(alone, weights(first, "c"))
    assert not np.array_equal(alone, weights(first, "a", seed=4))
