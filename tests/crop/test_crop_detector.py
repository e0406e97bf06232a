"""Faces are found, the largest and most central wins, and larger copies are a last resort."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tasks.core.imaging.decode import read_image
from tasks.crop import face_detector
from tasks.crop.face_detector import detect_faces, detect_with_exif_fallback, prominence


def middle(box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def scene(size: tuple[int, int], *faces: tuple[np.ndarray, int, tuple[int, int]]) -> np.ndarray:
    """Lay faces, each resized to a side, on gray with their left top corners at given places."""
    sheet = Image.new("RGB", size, (128, 128, 128))
    for face, side_px, corner in faces:
        sheet.paste(Image.fromarray(face).resize((side_px, side_px)), corner)
    return np.asarray(sheet)


def test_a_drawn_face_is_found_once_and_well_inside(draw_face, settings):
    faces = detect_faces(draw_face(), settings)
    assert len(faces) == 1
    left, top, right, bottom = faces[0].box_xyxy_px
    assert 60 < right - left < 200
    assert abs(right - left - (bottom - top)) < 2
    assert faces[0].score > 0.5
    x, y = middle(faces[0].box_xyxy_px)
    assert 90 < x < 166 and 90 < y < 190


def test_the_larger_of_two_faces_wins_though_less_central(draw_face, settings):
    big, small = draw_face(0), draw_face(1)
    rgb = scene((700, 360), (big, 340, (0, 10)), (small, 220, (340, 70)))
    faces = detect_faces(rgb, replace(settings, detector_side_px=700))
    assert len(faces) == 2
    assert middle(faces[0].box_xyxy_px)[0] < 340
    assert faces[0].prominence > faces[1].prominence


def test_the_more_central_of_two_like_faces_wins(draw_face, settings):
    face = draw_face(0)
    rgb = scene((700, 300), (face, 260, (0, 20)), (face, 260, (300, 20)))
    faces = detect_faces(rgb, replace(settings, detector_side_px=700))
    assert len(faces) == 2
    assert middle(faces[0].box_xyxy_px)[0] > 300


def test_prominence_doubts_what_scores_low():
    sure = prominence((40, 40, 80, 80), 1.5, 200, 200)
    doubtful = prominence((30, 30, 110, 110), 0.05, 200, 200)
    assert sure > doubtful > 0
    assert prominence((40, 40, 80, 80), 3.0, 200, 200) == sure
    assert prominence((0, 0, 200, 200), 1.0, 200, 200) == pytest.approx(1.0)


def test_no_face_in_noise_nor_in_a_strip(noise, settings):
    assert detect_faces(noise, settings) == []
    assert detect_faces(np.zeros((1, 3000, 3), dtype=np.uint8), settings) == []


def test_a_score_below_the_threshold_is_ignored(draw_face, settings):
    score = detect_faces(draw_face(), settings)[0].score
    assert (
        detect_faces(draw_face(), replace(settings, min_score=score + 0.5, max_upsamples=0)) == []
    )


def test_a_small_face_is_found_in_the_full_image_where_the_copy_shows_none(draw_face, settings):
    rgb = scene((1280, 960), (draw_face(), 256, (900, 600)))
    assert detect_faces(rgb, replace(settings, max_upsamples=0)) == []
    found = detect_faces(rgb, settings)[0]
    whole = detect_faces(draw_face(), settings)[0]
    at_x, at_y = middle(whole.box_xyxy_px)
    assert middle(found.box_xyxy_px) == pytest.approx((900 + at_x, 600 + at_y), abs=20)


def test_a_face_that_fills_a_small_image_is_found_upsampled(draw_face, settings):
    tiny = scene((64, 64), (draw_face(), 64, (0, 0)))
    assert detect_faces(tiny, replace(settings, max_upsamples=0)) == []
    assert len(detect_faces(tiny, settings)) == 1


def test_larger_copies_are_searched_only_where_nothing_was_found(
    draw_face, noise, settings, monkeypatch
):
    sides = []
    search = face_detector._search

    def watched(image, side_px, min_score):
        sides.append(side_px)
        return search(image, side_px, min_score)

    monkeypatch.setattr(face_detector, "_search", watched)
    detect_faces(draw_face(), settings)
    assert sides == [256]
    sides.clear()
    detect_faces(noise, settings)
    assert sides == [240, 480, 960]


def test_arrays_and_images_give_the_same_faces(draw_face, settings):
    rgb = draw_face(1)
    assert detect_faces(rgb, settings) == detect_faces(Image.fromarray(rgb), settings)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_lying_exif_flag_is_taken_back_only_where_nothing_was_found(
    orientation, draw_face, settings
):
    turn = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_270}
    upright = Image.fromarray(draw_face())
    shown = upright.transpose(turn.get(orientation, Image.Transpose.ROTATE_90))
    settings = replace(settings, min_score=0.2)  # a face upside down may score a little
    found = detect_with_exif_fallback(shown, orientation, settings)
    assert found.exif_orientation_ignored
    assert found.faces == detect_faces(upright, settings)
    assert np.array_equal(np.asarray(found.image), np.asarray(upright))
    assert detect_with_exif_fallback(shown, 1, settings).faces == []
    truthful = detect_with_exif_fallback(upright, orientation, settings)
    assert not truthful.exif_orientation_ignored and len(truthful.faces) == 1


def test_faces_of_real_people_are_found(photographs, settings):
    for path in photographs[::17]:
        faces = detect_faces(read_image(path, 10_000_000).rgb, settings)
        assert len(faces) == 1, path
        x, y = middle(faces[0].box_xyxy_px)
        assert 500 < x < 850 and 450 < y < 950, path


def test_the_larger_of_two_real_faces_wins(photographs, settings):
    first, second = (read_image(path, 10_000_000).rgb for path in (photographs[0], photographs[9]))
    rgb = scene((1400, 800), (first, 800, (0, 0)), (second, 500, (850, 150)))
    faces = detect_faces(rgb, replace(settings, detector_side_px=1000))
    assert len(faces) == 2
    assert middle(faces[0].box_xyxy_px)[0] < 800
