"""Sharpness and brightness of crops: against another computation, and what moves them."""

import numpy as np
import pytest
from PIL import Image, ImageFilter
from scipy.ndimage import laplace

from tasks.crop.crop_faces import brightness, sharpness
from tasks.crop.face_crop import cut


def test_they_are_the_variance_of_the_laplacian_and_the_mean_of_the_luma(noise):
    gray = noise @ np.array([0.299, 0.587, 0.114])
    assert brightness(noise) == pytest.approx(gray.mean(), abs=1e-9)
    assert sharpness(noise) == pytest.approx(laplace(gray)[1:-1, 1:-1].var(), rel=1e-9)


def test_blur_lowers_sharpness_step_by_step_and_leaves_brightness(draw_face):
    face = Image.fromarray(draw_face(0))
    blurred = [np.asarray(face.filter(ImageFilter.GaussianBlur(radius))) for radius in (0, 1, 2, 4)]
    values = [sharpness(rgb) for rgb in blurred]
    assert values == sorted(values, reverse=True) and values[0] > 2 * values[1]
    assert brightness(blurred[-1]) == pytest.approx(brightness(blurred[0]), abs=1)


def test_an_enlarged_face_is_less_sharp_than_a_large_one(draw_face):
    large = draw_face(0)
    small = np.asarray(Image.fromarray(large).resize((64, 64), Image.Resampling.BOX))
    from_large = cut(large, (64, 64, 192, 192), 128, 0.0, "bilinear")
    from_small = cut(small, (16, 16, 48, 48), 128, 0.0, "bilinear")
    assert sharpness(from_small) < 0.5 * sharpness(from_large)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_an_even_crop_has_no_edge(level):
    even = np.full((224, 224, 3), level, dtype=np.uint8)
    assert (sharpness(even), brightness(even)) == (0.0, level)


def test_the_largest_crop_does_not_overflow():
    rows, columns = np.mgrid[:1024, :1024]
    board = np.repeat(((rows + columns) % 2 * 255).astype(np.uint8)[:, :, None], 3, axis=2)
    assert sharpness(board) == pytest.approx((4 * 255) ** 2)
