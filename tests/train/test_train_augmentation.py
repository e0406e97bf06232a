import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tasks.train.augmentation import augment, draw_changes
from tasks.train.recipe import Augmentation

STILL = {
    "flip": 0,
    "rotation_deg": 0,
    "scale": (1, 1),
    "shift": 0,
    "brightness": 0,
    "contrast": 0,
    "saturation": 0,
    "grey": 0,
}


def augmented(pictures: np.ndarray, seed: int = 0, **changed: object) -> np.ndarray:
    ranges = Augmentation.model_validate({**STILL, **changed})
    rng = np.random.default_rng(seed)
    changes = draw_changes(ranges, len(pictures), pictures.shape[3], rng)
    return augment(torch.from_numpy(pictures), changes).numpy()


@pytest.fixture
def pictures() -> np.ndarray:
    noise = np.random.default_rng(1).integers(0, 256, (6, 12, 12, 3))
    return noise.astype(np.uint8)


def test_no_ranges_no_change(pictures):
    assert np.abs(augmented(pictures) - pictures).max() < 0.01


def test_flip_is_left_right(pictures):
    assert np.abs(augmented(pictures, flip=1) - pictures[:, :, ::-1]).max() < 0.01


def test_flip_share_is_near_its_probability(pictures):
    many = np.repeat(pictures[:1], 400, axis=0)
    flipped = np.abs(augmented(many, flip=0.3) - many).reshape(400, -1).max(axis=1) > 1
    assert 0.22 < flipped.mean() < 0.38


def test_values_stay_in_range_whatever_is_drawn(pictures):
    wild = augmented(
        pictures, brightness=1, contrast=1, saturation=1, rotation_deg=180, shift=0.5, grey=0.5
    )
    assert wild.dtype == np.float32
    assert wild.shape == pictures.shape
    assert wild.min() >= 0
    assert wild.max() <= 255


@pytest.mark.parametrize(
    "change",
    [
        {"rotation_deg": 20},
        {"scale": (0.8, 1.2)},
        {"shift": 0.2},
        {"brightness": 0.4},
        {"contrast": 0.4},
        {"saturation": 0.8},
    ],
)
def test_each_picture_of_a_batch_is_changed_in_its_own_way(pictures, change):
    same = np.repeat(pictures[:1], 6, axis=0)
    out = augmented(same, **change)
    for first in range(6):
        for second in range(first):
            assert np.abs(out[first] - out[second]).max() > 0.5


def test_same_chance_same_pictures(pictures):
    change = {"rotation_deg": 20, "shift": 0.1, "contrast": 0.3}
    assert np.array_equal(augmented(pictures, 3, **change), augmented(pictures, 3, **change))
    assert not np.array_equal(augmented(pictures, 3, **change), augmented(pictures, 4, **change))


def test_grey_takes_the_luma(pictures):
    out = augmented(pictures, grey=1)
    luma = pictures @ np.array([0.299, 0.587, 0.114])
    assert np.abs(out - luma[..., None]).max() < 0.01


def test_shift_moves_by_a_share_of_the_side():
    dot = np.zeros((200, 20, 20, 3), dtype=np.uint8)
    dot[:, 9:11, 9:11] = 255
    out = augmented(dot, shift=0.2)[..., 0]
    rows = (out.sum(axis=2) * np.arange(20)).sum(axis=1) / out.sum(axis=(1, 2))
    assert 3.5 < np.abs(rows - 9.5).max() <= 4.01  # a fifth of 20 px


def test_grey_pictures_of_one_channel_work(pictures):
    out = augmented(pictures[..., :1], brightness=0.3, rotation_deg=10, saturation=0.5)
    assert out.shape == (6, 12, 12, 1)


def test_scale_must_run_from_smallest_to_largest():
    with pytest.raises(ValidationError, match="smallest"):
        Augmentation.model_validate({**STILL, "scale": (1.2, 0.8)})
