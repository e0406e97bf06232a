import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tasks.core.training.config import Augmentation
from tasks.core.training.data import augmentation
from tasks.core.training.data.augmentation import augment, sample_augmentations

STILL = {
    "flip": 0,
    "rotation_deg": 0,
    "shear_deg": 0,
    "scale": (1, 1),
    "shift": 0,
    "brightness": 0,
    "contrast": 0,
    "saturation": 0,
    "gray": 0,
}
WILD = {
    "flip": 0.5,
    "rotation_deg": 30,
    "shear_deg": 15,
    "scale": (0.8, 1.2),
    "shift": 0.1,
    "brightness": 0.3,
    "contrast": 0.3,
    "saturation": 0.3,
    "gray": 0.3,
}
CPU, GPU = augmentation._by_opencv, augmentation._by_torch


@pytest.fixture(params=["_by_opencv", "_by_torch"], autouse=True)
def way(request, monkeypatch):
    """What a CPU does and what a GPU does: every test here holds for both."""
    chosen = getattr(augmentation, request.param)
    monkeypatch.setattr(augmentation, "_by_opencv", chosen)
    return request.param


def augmented(images: np.ndarray, seed: int = 0, **changed: object) -> np.ndarray:
    ranges = Augmentation.model_validate({**STILL, **changed})
    rng = np.random.default_rng(seed)
    changes = sample_augmentations(ranges, len(images), images.shape[3], rng)
    return augment(torch.from_numpy(images), changes).numpy().astype(int)


@pytest.fixture
def images() -> np.ndarray:
    noise = np.random.default_rng(1).integers(0, 256, (6, 12, 12, 3))
    return noise.astype(np.uint8)


def test_no_ranges_no_change(images):
    assert np.array_equal(augmented(images), images)


def test_flip_is_left_right(images):
    assert np.array_equal(augmented(images, flip=1), images[:, :, ::-1])


def test_flip_share_is_near_its_probability(images):
    many = np.repeat(images[:1], 400, axis=0)
    flipped = np.abs(augmented(many, flip=0.3) - many).reshape(400, -1).max(axis=1) > 1
    assert 0.22 < flipped.mean() < 0.38


def test_fine_lines_keep_most_of_their_contrast():
    """Training pictures must look as sharp as the validation pictures, which are not moved."""
    fine = np.where(np.arange(64) % 4 < 2, 40, 215).astype(np.uint8)
    images = np.broadcast_to(fine[None, None, :, None], (40, 64, 64, 3)).copy()
    inside = augmented(images, shift=0.1)[:, :, 10:-10]
    assert inside.std() > 0.9 * images[:, :, 10:-10].std()  # bilinear: .84


def test_values_stay_in_range_whatever_is_drawn(images):
    wild = augmented(
        images, brightness=1, contrast=1, saturation=1, rotation_deg=180, shift=0.5, gray=0.5
    )
    assert wild.shape == images.shape
    assert wild.min() == 0  # cut off, not turned over
    assert wild.max() == 255


@pytest.mark.parametrize(
    "change",
    [
        {"rotation_deg": 20},
        {"shear_deg": 20},
        {"scale": (0.8, 1.2)},
        {"shift": 0.2},
        {"brightness": 0.4},
        {"contrast": 0.4},
        {"saturation": 0.8},
    ],
)
def test_each_image_of_a_batch_is_changed_in_its_own_way(images, change):
    same = np.repeat(images[:1], 6, axis=0)
    out = augmented(same, **change)
    for first in range(6):
        for second in range(first):
            assert np.abs(out[first] - out[second]).max() > 0.5


def test_same_chance_same_images(images):
    change = {"rotation_deg": 20, "shift": 0.1, "contrast": 0.3}
    assert np.array_equal(augmented(images, 3, **change), augmented(images, 3, **change))
    assert not np.array_equal(augmented(images, 3, **change), augmented(images, 4, **change))


def test_gray_takes_the_luma(images):
    out = augmented(images, gray=1)
    luma = images @ np.array([0.299, 0.587, 0.114])
    assert np.abs(out - luma[..., None]).max() <= 0.6


def test_shift_moves_by_a_share_of_the_side():
    dot = np.zeros((200, 20, 20, 3), dtype=np.uint8)
    dot[:, 9:11, 9:11] = 255
    out = augmented(dot, shift=0.2)[..., 0]
    rows = (out.sum(axis=2) * np.arange(20)).sum(axis=1) / out.sum(axis=(1, 2))
    assert 3.5 < np.abs(rows - 9.5).max() <= 4.01  # a fifth of 20 px


def test_gray_images_of_one_channel_work(images):
    out = augmented(images[..., :1], brightness=0.3, rotation_deg=10, saturation=0.5)
    assert out.shape == (6, 12, 12, 1)


def test_shear_slants_upright_lines_and_leaves_level_ones():
    lines = np.zeros((100, 41, 41, 3), dtype=np.uint8)
    lines[:, :, 20] = 255
    out = augmented(lines, shear_deg=30)[..., 0]
    places = (out * np.arange(41)).sum(axis=2) / out.sum(axis=2)  # of the line, row by row
    slants = (places[:, 38] - places[:, 2]) / 36
    assert np.allclose(places[:, 20], 20, atol=0.1)  # the middle stays
    assert 0.5 < np.abs(slants).max() <= np.tan(np.deg2rad(30)) + 0.01
    assert slants.min() < -0.2 < 0.2 < slants.max()
    level = lines.transpose(0, 2, 1, 3).copy()
    assert np.array_equal(augmented(level, shear_deg=30), level)


def test_what_a_gpu_does_is_what_a_cpu_does_but_for_rounding():
    small = np.random.default_rng(2).integers(0, 256, (6, 5, 5, 3))
    smooth = torch.from_numpy(small).permute(0, 3, 1, 2).float()
    smooth = torch.nn.functional.interpolate(smooth, (48, 48), mode="bicubic").clamp(0, 255)
    images = smooth.permute(0, 2, 3, 1).to(torch.uint8).contiguous()
    ranges = Augmentation.model_validate(WILD)
    for channels in (3, 1):
        changes = sample_augmentations(ranges, 6, channels, np.random.default_rng(0))
        some = images[..., :channels].contiguous()
        first, second = (found(some, changes).int() for found in (CPU, GPU))
        assert (first - some).abs().float().mean() > 10  # something happened
        apart = (first - second).abs().float()
        assert apart.mean() < 0.5
        assert apart.max() <= 4


@pytest.mark.parametrize("n_threads", [1, 2, 7])
def test_the_number_of_threads_changes_nothing(images, n_threads, monkeypatch):
    whole = augmented(images, **WILD)
    monkeypatch.setattr(augmentation.torch, "get_num_threads", lambda: n_threads)
    assert np.array_equal(augmented(images, **WILD), whole)


def test_scale_must_run_from_smallest_to_largest():
    with pytest.raises(ValidationError, match="smallest"):
        Augmentation.model_validate({**STILL, "scale": (1.2, 0.8)})
