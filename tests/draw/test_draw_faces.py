"""What is drawn: units move what they should, the masks cover it, a detector finds the faces."""

import dlib
import numpy as np
import pandas as pd
import pytest

from tasks.draw.action_units import PROTOTYPES, Expression, Style, express
from tasks.draw.anatomy import build_face, landmarks
from tasks.draw.canvas import draw_pose
from tasks.draw.identity import Identity, draw_identity
from tasks.draw.paint_face import paint_portrait
from tasks.draw.plan import identity_rng, image_rng, plan_images
from tasks.draw.render import moved_mask
from tasks.draw.scene import draw_scene

SHOWN = [emotion for emotion in PROTOTYPES if emotion != "neutral"]
FULL = Style(intensity_mean=0.9, intensity_sd=0.0, unit_mixing=0.0)
WEAK = Style(intensity_mean=0.15, intensity_sd=0.0, unit_mixing=0.3)


def someone(age_years: int = 30, gender: str = "female", number: int = 1) -> Identity:
    return draw_identity(age_years, gender, identity_rng(1, number))


def points(who: Identity, **units: float) -> np.ndarray:
    """Landmarks with units given as au12=0.8."""
    moved = {int(name.removeprefix("au")): value for name, value in units.items()}
    return landmarks(build_face(who, Expression(moved)))


@pytest.mark.parametrize("age_years", [4, 30])
def test_action_units_move_what_they_are_named_after(age_years: int) -> None:
    who = someone(age_years)
    rest = points(who)
    brows, mouth = slice(17, 27), slice(48, 68)
    assert (points(who, au1=0.8)[[21, 22], 1] < rest[[21, 22], 1] - 0.05).all()
    assert (points(who, au2=0.8)[[18, 25], 1] < rest[[18, 25], 1] - 0.05).all()
    assert (points(who, au4=0.8)[brows, 1] > rest[brows, 1]).all()
    assert (points(who, au12=0.8)[[48, 54], 1] < rest[[48, 54], 1] - 0.05).all()
    assert (points(who, au15=0.8)[[48, 54], 1] > rest[[48, 54], 1] + 0.05).all()
    wide = points(who, au20=0.8)
    assert wide[54, 0] - wide[48, 0] > rest[54, 0] - rest[48, 0] + 0.08
    dropped = points(who, au26=0.8)
    assert dropped[8, 1] > rest[8, 1] + 0.08
    assert dropped[66, 1] - dropped[62, 1] > 0.15

    def opening(shown: np.ndarray) -> float:
        return float((shown[[40, 41], 1] - shown[[38, 37], 1]).sum())

    assert opening(points(who, au43=1.0)) < 0.1 * opening(rest)
    assert opening(points(who, au7=0.8)) < opening(rest) < opening(points(who, au5=0.8))
    np.testing.assert_array_equal(points(who, au1=0.8)[mouth], rest[mouth])


def test_children_have_rounder_faces_larger_eyes_and_smaller_noses() -> None:
    def proportions(age_years: int) -> np.ndarray:
        people = [someone(age_years, number=number) for number in range(30)]
        return np.mean(
            [(who.chin_y / who.face_w, who.eye_up / who.face_w, who.nose_y) for who in people],
            axis=0,
        )

    child, adolescent, adult = (proportions(age) for age in (5, 12, 30))
    assert child[0] < adolescent[0] < adult[0]
    assert child[1] > adolescent[1] > adult[1]
    assert child[2] < adolescent[2] < adult[2]


def test_mixing_borrows_units_of_the_neighbouring_emotion() -> None:
    rng = np.random.default_rng(0)
    plain = express("fear", FULL, rng)
    assert set(plain.units) == set(PROTOTYPES["fear"])
    mixed = express("anger", FULL.model_copy(update={"unit_mixing": 0.25}), rng)
    assert set(mixed.units) == set(PROTOTYPES["anger"]) | set(PROTOTYPES["sadness"])
    assert max(mixed.units[15], mixed.units[1]) < min(mixed.units[5], mixed.units[23])


def test_a_stronger_style_moves_more() -> None:
    def total(style: Style) -> float:
        rng = np.random.default_rng(1)
        return sum(sum(express("fear", style, rng).units.values()) for _ in range(50))

    assert total(FULL) > 2 * total(WEAK)


@pytest.mark.parametrize("emotion", SHOWN)
@pytest.mark.parametrize("style", [FULL, WEAK], ids=["full", "weak"])
def test_masks_cover_what_changes_in_the_image(emotion: str, style: Style) -> None:
    inside, outside = [], []
    for number, age_years in ((1, 4), (2, 14), (3, 40)):
        who = someone(age_years, "male", number)
        rng = image_rng(1, number, emotion, 1)
        expression = express(emotion, style, rng)
        pose, scene = draw_pose(256, rng), draw_scene(rng)
        rest, face = build_face(who, Expression()), build_face(who, expression)
        mask, moved = moved_mask(rest, face, pose, 256)
        before, after = (paint_portrait(who, it, pose, scene, 256) for it in (rest, face))
        change = np.abs(after.astype(float) - before).sum(axis=2)
        assert moved
        assert 0.002 < (mask > 0).mean() < 0.25
        inside.append(change[mask > 0].sum())
        outside.append(change[mask == 0].sum())
    # A weak movement below the threshold of a third of a pixel still changes some pixels.
    assert sum(inside) > (7 if style is FULL else 1.2) * sum(outside)


@pytest.mark.parametrize(
    ("units", "moved", "still"),
    [
        ({12: 0.8}, {"mouth"}, {"left brow", "right brow"}),
        ({4: 0.8}, {"left brow", "right brow", "frown"}, {"mouth", "chin"}),
        ({26: 0.8}, {"mouth", "chin"}, {"left brow", "left eye"}),
        ({43: 1.0}, {"left eye", "right eye"}, {"mouth", "left brow"}),
    ],
)
def test_masks_lie_where_the_units_act(
    units: dict[int, float], moved: set[str], still: set[str]
) -> None:
    who = someone()
    rest, face = build_face(who, Expression()), build_face(who, Expression(units))
    mask, names = moved_mask(rest, face, draw_pose(256, np.random.default_rng(0)), 256)
    assert moved <= set(names)
    assert not still & set(names)
    assert mask.any()


def test_dlib_finds_the_faces_of_every_cohort() -> None:
    detector = dlib.get_frontal_face_detector()
    style = Style(intensity_mean=0.8, intensity_sd=0.2, unit_mixing=0.2)
    found = []
    subjects = {"child": 17, "adolescent": 17, "adult": 17}
    for sitting in plan_images(subjects, ("anger", "fear", "happiness"), 1):
        name = sitting.name
        who = draw_identity(name.age_years, name.gender, identity_rng(5, sitting.number))
        rng = image_rng(5, sitting.number, name.emotion, 1)
        expression = express(name.emotion, style, rng)
        pose, scene = draw_pose(256, rng), draw_scene(rng)
        image = paint_portrait(who, build_face(who, expression), pose, scene, 256)
        eyes = pose.pixels(np.zeros((1, 2)))[0]
        boxes = detector(image, 0)
        hit = any(
            box.left() < eyes[0] < box.right() and box.top() < eyes[1] < box.bottom()
            for box in boxes
        )
        found.append((sitting.cohort, hit))
    rates = pd.DataFrame(found, columns=["cohort", "hit"]).groupby("cohort")["hit"].mean()
    assert len(rates) == 3
    assert (rates >= 0.97).all(), rates.to_dict()
