"""Cutting: margins, the middle, the picture's border, and no aliasing."""

import numpy as np
import pytest

from tasks.crop.face_crop import cut, square_around


def ramp(height: int = 300, width: int = 400) -> np.ndarray:
    """Red grows by 1 every 2 px to the right, green every 2 px downwards."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([columns // 2, rows // 2, 0 * rows], axis=2).astype(np.uint8)


def test_the_square_keeps_the_middle_and_takes_the_longer_side():
    assert square_around((100, 50, 200, 130), 0.0) == (100, 40, 200, 140)
    assert square_around((100, 50, 200, 150), 0.25) == (75, 25, 225, 175)


@pytest.mark.parametrize("resample", ["bilinear", "lanczos"])
def test_the_boxs_middle_is_the_crops_middle(resample):
    crop = cut(ramp(), (101, 61, 181, 141), 80, 0.25, resample).astype(float)
    assert crop.shape == (80, 80, 3)
    assert crop[39:41, 39:41, 0].mean() == pytest.approx(141 / 2 - 0.5, abs=0.5)
    assert crop[39:41, 39:41, 1].mean() == pytest.approx(101 / 2 - 0.5, abs=0.5)
    # 120 px of the picture are 80 px of the crop.
    assert crop[40, 79, 0] - crop[40, 0, 0] == pytest.approx(120 / 2 * 79 / 80, abs=1.5)


def test_an_unscaled_cut_is_the_image_itself():
    rgb = ramp()
    assert np.array_equal(cut(rgb, (40, 60, 140, 160), 100, 0.0, "bilinear"), rgb[60:160, 40:140])


def test_where_the_square_leaves_the_image_its_edge_is_repeated():
    rgb = np.random.default_rng(3).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    crop = cut(rgb, (-10, -20, 30, 20), 40, 0.0, "bilinear")
    assert np.array_equal(crop[20:, 10:], rgb[:20, :30])
    assert (crop[:20, 10:] == rgb[0, :30]).all()
    assert (crop[20:, :10] == rgb[:20, :1]).all()
    assert (crop[:20, :10] == rgb[0, 0]).all()
    beyond = cut(rgb, (60, 40, 100, 80), 40, 0.0, "bilinear")
    assert np.array_equal(beyond[:20, :20], rgb[40:, 60:])
    assert (beyond[20:, 20:] == rgb[-1, -1]).all()


def test_a_square_that_just_leaves_the_image_is_cut_like_one_that_does_not():
    wide = np.random.default_rng(4).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    inside = cut(wide, (20, 40, 260, 280), 60, 0.0, "lanczos").astype(int)
    # The picture's end below does not matter to the rows far above it.
    outside = cut(wide[:278], (20, 40, 260, 280), 60, 0.0, "lanczos").astype(int)
    assert abs(inside[:50] - outside[:50]).max() <= 1


def test_a_square_wholly_outside_still_gives_a_crop():
    crop = cut(ramp(), (500, 400, 520, 420), 16, 0.0, "bilinear")
    assert (crop == ramp()[-1, -1]).all()


@pytest.mark.parametrize("resample", ["bilinear", "lanczos"])
def test_a_fine_checkerboard_turns_gray_instead_of_aliasing(resample):
    rows, columns = np.mgrid[:700, :700]
    board = np.repeat(((rows + columns) % 2 * 255).astype(np.uint8)[:, :, None], 3, axis=2)
    crop = cut(board, (33, 41, 633, 641), 224, 0.0, resample).astype(int)
    assert abs(crop - 127.5).max() < 12
    assert crop.std() < 4


def test_a_small_face_is_enlarged_to_the_same_size():
    assert cut(ramp(), (10, 10, 40, 40), 224, 0.25, "lanczos").shape == (224, 224, 3)
