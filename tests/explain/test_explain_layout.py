"""Parts of the face by position."""

import numpy as np
import pytest

from tasks.explain.explanation_table import REGIONS, region_map, superpixel_regions


@pytest.mark.parametrize("margin", [0.0, 0.25, 0.5])
@pytest.mark.parametrize(
    ("x", "y", "name"),
    [
        (0.50, 0.72, "mouth"),
        (0.26, 0.26, "eyes"),
        (0.74, 0.26, "eyes"),
        (0.30, 0.11, "brows"),
        (0.50, 0.50, "nose"),
        (0.20, 0.50, "cheeks"),
        (0.50, 0.95, "chin"),
        (0.02, 0.02, "surroundings"),
    ],
)
def test_places_in_the_detectors_square_keep_their_names_at_any_margin(x, y, name, margin):
    side_px = 224
    column, row = (int((place + margin) / (1 + 2 * margin) * side_px) for place in (x, y))
    assert REGIONS[region_map(side_px, margin)[row, column]] == name


def test_every_pixel_has_a_name_and_left_is_as_right():
    regions = region_map(96, 0.25)
    assert set(np.unique(regions)) == set(range(len(REGIONS)))
    assert np.array_equal(regions, regions[:, ::-1])


def test_a_background_around_the_face_is_not_named_by_its_centroid():
    regions = region_map(64, 0.25)
    segments = np.zeros((64, 64), dtype=np.int64)
    segments[8:60, 12:52] = 1
    assert superpixel_regions(segments, regions)[0] == "surroundings"
