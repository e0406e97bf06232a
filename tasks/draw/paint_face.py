"""Painting of a face: skin, light and shadow, eyes, brows, nose and mouth, in order."""

import numpy as np

from tasks.draw.anatomy import Eye, Face, Mouth
from tasks.draw.canvas import Canvas, Pose, toned
from tasks.draw.curves import disc, mirrored, ribbon, shifted, smooth, tapered
from tasks.draw.identity import Identity
from tasks.draw.paint_body import (
    hair_outline,
    paint_back_hair,
    paint_bust,
    paint_front_hair,
    paint_glasses,
)
from tasks.draw.scene import Scene, develop, paint_backdrop

_EYEBALL = (236.0, 232.0, 228.0)
_LID_SHADE = (150.0, 138.0, 134.0)
_GLEAM = (252.0, 252.0, 252.0)
_PUPIL = (14.0, 12.0, 14.0)
_MOUTH = (62.0, 20.0, 24.0)
_TONGUE = (158.0, 74.0, 78.0)
_TEETH = (232.0, 226.0, 214.0)


def paint_portrait(
    subject: Identity, face: Face, pose: Pose, scene: Scene, size_px: int
) -> np.ndarray:
    """Paint one image, `(size_px, size_px, 3)` uint8 RGB."""
    canvas = Canvas(size_px, pose)
    paint_backdrop(canvas, scene)
    paint_back_hair(canvas, subject)
    paint_bust(canvas, subject, face)
    canvas.fill(face.outline, subject.skin)
    _shade_head(canvas, subject, face)
    for eye in face.eyes:
        _paint_eye(canvas, subject, eye)
    _paint_nose(canvas, subject, face)
    _paint_mouth(canvas, subject, face.mouth)
    _paint_brows(canvas, subject, face)
    _shade_creases(canvas, face)
    paint_front_hair(canvas, subject)
    if subject.glasses:
        paint_glasses(canvas, subject)
    return develop(canvas, scene, face.outline, hair_outline(subject))


def _shade_head(canvas: Canvas, subject: Identity, face: Face) -> None:
    """Apply the light and shadow of a face at rest."""
    chin = face.outline[:, 1].max()
    for sign in (-1.0, 1.0):
        side = np.array((sign, 1.0))
        socket = disc((subject.eye_x - 0.02, -0.10), subject.eye_w * 0.95, 0.07) * side
        canvas.shadow(socket, 0.20 + 0.06 * subject.maturity, "form")
        inner = disc((0.135, -0.03), 0.045, 0.09) * side
        canvas.shadow(inner, 0.22, "fold")
        temple = disc((subject.face_w * 0.98, 0.05), 0.10, 0.55) * side
        canvas.shadow(temple, 0.22, "form")
        jaw = smooth(np.array([(subject.face_w * 0.96, 0.25), (subject.jaw_w * 1.02, chin * 0.75),
                               (subject.chin_w * 1.2, chin * 0.985)])) * side  # fmt: skip
        canvas.shadow(ribbon(jaw, 0.10), 0.20, "fold")
        cheek = disc((subject.eye_x + 0.08, subject.nose_y + 0.02), 0.15, 0.12) * side
        canvas.blush(cheek, 0.28 - 0.10 * subject.maturity)
        canvas.glow(
            disc((subject.eye_x + 0.05, subject.nose_y * 0.55), 0.11, 0.06) * side, 0.14, "form"
        )
    canvas.glow(disc((0.0, -0.46), 0.26, 0.12), 0.12, "form")
    canvas.glow(disc((0.0, chin * 0.93), 0.09, 0.045), 0.12, "form")
    if subject.stubble:
        half = np.array(
            [
                (0.0, subject.nose_y + 0.10),
                (subject.jaw_w, 0.5),
                (subject.jaw_w * 0.9, chin * 0.86),
                (0.0, chin),
            ]
        )
        beard = smooth(np.concatenate((half, mirrored(half)[1:-1])), closed=True)
        canvas.shadow(beard, subject.stubble * 0.8, "fold")


def _paint_eye(canvas: Canvas, subject: Identity, eye: Eye) -> None:
    """Paint eyeball, iris, lids and lashes."""
    lid = toned(subject.skin, 0.80)
    opening = eye.opening
    with canvas.within(opening):
        canvas.fill(opening, _EYEBALL)
        x, y = eye.iris
        radius = subject.iris_r
        canvas.fill(disc((x, y), 1.06 * radius, 1.06 * radius), toned(subject.iris, 0.55), 0.02)
        canvas.fill(disc((x, y), 0.90 * radius, 0.90 * radius), subject.iris, 0.02)
        lit = disc((x, y + 0.022), 0.6 * radius, 0.5 * radius)
        canvas.fill(lit, toned(subject.iris, 1.35), 0.02)
        canvas.fill(disc((x, y), 0.45 * radius, 0.45 * radius), _PUPIL, 0.02)
        canvas.fill(disc((x - 0.022, y - 0.026), 0.018, 0.018), _GLEAM, 0.04)
        canvas.line(shifted(eye.upper, 0.012), _LID_SHADE, 0.026)  # the lid's own shadow
    canvas.line(eye.lower, lid, 0.012)
    lash = 0.030 if subject.gender == "female" and subject.maturity > 0.5 else 0.024
    share = np.linspace(0, 1, len(eye.upper))
    canvas.fill(ribbon(eye.upper, lash * (0.45 + 0.75 * share)), toned(subject.brow, 0.38))
    canvas.shadow(tapered(eye.crease, 0.022), 0.42, "line")
    canvas.shadow(ribbon(shifted(eye.lower, 0.018), 0.025), 0.16, "fold")


def _paint_brows(canvas: Canvas, subject: Identity, face: Face) -> None:
    for brow, line in zip(face.brows, face.brow_lines, strict=True):
        with canvas.within(brow, 0.90):
            canvas.fill(brow, subject.brow)
            for share in (0.12, 0.3, 0.48, 0.66, 0.84):
                root = line[int(share * (len(line) - 1))]
                out = np.sign(root[0])
                hair = root + np.array([(-0.02 * out, 0.035), (0.035 * out, -0.035)])
                canvas.line(hair, toned(subject.brow, 0.78), 0.010)
        canvas.shadow(shifted(brow, 0.035), 0.16, "fold")


def _paint_nose(canvas: Canvas, subject: Identity, face: Face) -> None:
    tip_y = face.nose_tip[1]
    lift = 0.05
    for sign, wing in zip((-1.0, 1.0), face.wings, strict=True):
        side = np.array((sign, 1.0))
        flank = smooth(
            np.array([(0.075, 0.02), (0.075, tip_y * 0.6), (subject.nose_w * 0.9, tip_y)])
        )
        canvas.shadow(ribbon(flank * side, 0.05), 0.20, "fold", lift)
        canvas.shadow(tapered(wing, 0.032), 0.50, "line", lift)
        nostril = disc((subject.nose_w * 0.46 * sign, tip_y + 0.042), subject.nose_w * 0.24, 0.017)
        canvas.fill(nostril, toned(subject.skin, 0.36), lift)
    width = subject.nose_w
    shade = [(-width, tip_y + 0.045), (0.0, tip_y + 0.03), (width, tip_y + 0.045),
             (width * 0.6, tip_y + 0.085), (-width * 0.6, tip_y + 0.085)]  # fmt: skip
    canvas.shadow(np.array(shade), 0.36, "fold", lift)
    canvas.glow(disc((0.0, tip_y - 0.015), 0.040, 0.030), 0.30, "fold", 0.10)
    canvas.glow(ribbon(np.array([(0.0, 0.0), (0.0, tip_y - 0.05)]), 0.035), 0.20, "fold", 0.08)


def _paint_mouth(canvas: Canvas, subject: Identity, mouth: Mouth) -> None:
    lips_up = np.concatenate((mouth.upper_outer, mouth.upper_inner[::-1]))
    lips_low = np.concatenate((mouth.lower_inner, mouth.lower_outer[::-1]))
    if mouth.gap > 0.012:
        _paint_inside(canvas, mouth)
    canvas.fill(lips_up, toned(subject.lip, 0.88))
    canvas.fill(lips_low, subject.lip)
    if mouth.gap <= 0.03:
        canvas.fill(tapered(mouth.upper_inner, 0.024), toned(subject.lip, 0.36))
    low_middle = mouth.lower_outer[len(mouth.lower_outer) // 2]
    inner_middle = mouth.lower_inner[len(mouth.lower_inner) // 2]
    shine = disc((float(low_middle[0]), float((low_middle[1] + inner_middle[1]) / 2)), 0.07, 0.012)
    canvas.glow(shine, 0.22, "fold")
    below = disc((0.0, float(low_middle[1]) + 0.040), 0.11, 0.020)
    canvas.shadow(below, 0.30, "fold")
    top = mouth.upper_outer[len(mouth.upper_outer) // 2]
    philtrum = np.array([(0.0, subject.nose_y + 0.04), (0.0, float(top[1]) - 0.01)])
    canvas.shadow(ribbon(philtrum, 0.035), 0.16, "fold")


def _paint_inside(canvas: Canvas, mouth: Mouth) -> None:
    """Paint teeth and tongue between the lips."""
    inside = np.concatenate((mouth.upper_inner, mouth.lower_inner[::-1]))
    with canvas.within(inside):
        canvas.fill(inside, _MOUTH)
        floor = mouth.lower_inner[len(mouth.lower_inner) // 2]
        canvas.fill(disc((0.0, float(floor[1])), 0.12, mouth.gap * 0.32), _TONGUE)
        teeth = min(0.085, mouth.gap * 0.62)
        band = np.concatenate(
            (shifted(mouth.upper_inner, -0.02), shifted(mouth.upper_inner, teeth)[::-1])
        )
        canvas.fill(band, _TEETH)


def _shade_creases(canvas: Canvas, face: Face) -> None:
    for furrow in face.furrows.values():
        canvas.shadow(furrow.outline, 0.46 * furrow.strength, "line")
        canvas.shadow(furrow.outline, 0.30 * furrow.strength, "fold")
    for bulge in face.bulges.values():
        canvas.glow(shifted(bulge.outline, -0.02), 0.26 * bulge.strength, "form")
        canvas.blush(bulge.outline, 0.30 * bulge.strength)
