"""Hair, in two layers: behind the head and over the skull."""

import numpy as np

from tasks.draw.anatomy import Face
from tasks.draw.canvas import Canvas, toned
from tasks.draw.curves import disc, mirrored, ribbon, shifted, smooth, tapered
from tasks.draw.identity import Identity

_VOLUME = {
    "short": 0.11,
    "crew": 0.035,
    "curly": 0.14,
    "receding": 0.035,
    "bob": 0.14,
    "long": 0.13,
    "bun": 0.08,
}
_STRANDS = 15
_FRAME = (34.0, 22.0, 22.0)
_GLASS = (255.0, 255.0, 255.0)
_BEHIND = -0.2  # depth of neck and clothing relative to the face, in face units


def paint_back_hair(canvas: Canvas, subject: Identity) -> None:
    """Paint the hair behind face and neck."""
    dark = toned(subject.hair, 0.72)
    wide = subject.face_w + _VOLUME[subject.hair_style]
    if subject.hair_style == "bun":
        for radius, tone in ((0.25, 0.8), (0.20, 1.0)):
            knot = disc(
                (0.10 * np.sign(subject.parting), subject.crown_y - 0.06), radius * 1.1, radius
            )
            canvas.fill(knot, toned(subject.hair, tone), -0.3)
        return
    if subject.hair_style not in ("bob", "long"):
        return
    bottom = 0.74 * subject.chin_y if subject.hair_style == "bob" else 1.55
    flare = 0.08 if subject.hair_style == "bob" else 0.16
    half = np.array(
        [
            (0.0, subject.crown_y - 0.02),
            (wide * 0.75, subject.crown_y + 0.22),
            (wide * 1.02, -0.2),
            (wide + flare * 0.6, 0.4 * bottom),
            (wide + flare, 0.85 * bottom),
            (wide * 0.80, bottom),
            (wide * 0.3, bottom * 0.98),
        ]
    )
    canvas.fill(_both(half), dark, -0.25)


def paint_front_hair(canvas: Canvas, subject: Identity) -> None:
    """Paint the cap of hair over the skull, its strands and its sheen."""
    cap = hair_outline(subject)
    if subject.hair_style == "curly":
        _paint_curls(canvas, subject)
    canvas.fill(cap, subject.hair)
    with canvas.within(cap):
        _paint_strands(canvas, subject)
    if subject.hair_style in ("bob", "long"):
        for lock in _locks(subject):
            canvas.fill(lock, toned(subject.hair, 0.94))


def hair_outline(subject: Identity) -> np.ndarray:
    """Return the outline of the hair over the skull."""
    over = _VOLUME[subject.hair_style]
    wide = subject.face_w + over * 0.55
    burn = {"receding": -0.02, "crew": -0.12, "short": 0.02}.get(subject.hair_style, 0.0)
    line_y = subject.hairline_y
    if subject.hair_style == "receding":
        line_y = subject.crown_y + 0.16
    elif subject.hair_style == "crew":
        line_y = max(line_y, -0.66)
    outer = np.array(
        [
            (subject.face_w * 0.985, burn),
            (wide, -0.22),
            (wide * 0.93, -0.58),
            (wide * 0.62, subject.crown_y + 0.10 - over * 0.4),
            (0.0, subject.crown_y - over * 0.8),
        ]
    )
    inner = np.array(
        [
            (0.93 * subject.face_w, -0.30),
            (0.80 * subject.face_w, line_y + 0.15),
            (0.45 * subject.face_w, line_y + 0.01),
        ]
    )
    dip = 0.05 if abs(subject.parting) > 0.12 else 0.0
    middle = np.array([(subject.parting * subject.face_w, line_y - dip)])
    contour = (outer, mirrored(outer)[1:], inner * (-1.0, 1.0), middle, inner[::-1])
    return smooth(np.concatenate(contour), closed=True, steps=5)


def _paint_strands(canvas: Canvas, subject: Identity) -> None:
    over = _VOLUME[subject.hair_style]
    for index in range(_STRANDS):
        share = (index + 0.5) / _STRANDS * 2 - 1
        root = np.array((subject.parting * subject.face_w * 0.8, subject.crown_y - over * 0.4))
        tip = np.array((share * subject.face_w * 1.1, -0.28 - 0.25 * (1 - abs(share))))
        middle = np.array((share * subject.face_w * 0.85, subject.crown_y + 0.12 + 0.22 * share**2))
        strand = smooth(np.stack((root, middle, tip)))
        canvas.fill(tapered(strand, 0.024), toned(subject.hair, (1.12, 0.88, 1.0)[index % 3]))


def _paint_curls(canvas: Canvas, subject: Identity) -> None:
    wide = subject.face_w + 0.06
    for index in range(15):
        angle = np.pi * (index + 0.5) / 15
        x, y = -wide * np.cos(angle), -0.18 + (subject.crown_y + 0.16) * np.sin(angle)
        radius = 0.15 + 0.02 * ((index * 7) % 3)
        curl = disc((float(x), float(y)), radius, radius)
        canvas.fill(curl, toned(subject.hair, 0.9 + 0.1 * (index % 2)))


def _locks(subject: Identity) -> list[np.ndarray]:
    """Return the outlines of the hair on both sides of the face."""
    bottom = 0.70 * subject.chin_y if subject.hair_style == "bob" else 1.30
    edge = subject.face_w * 0.93
    half = np.array(
        [
            (edge * 0.93, -0.42),
            (edge * 1.02, -0.1),
            (edge * 1.03, 0.35 * bottom),
            (edge * 1.0, bottom),
            (edge + 0.20, bottom * 0.97),
            (edge + 0.24, 0.4 * bottom),
            (edge + 0.14, -0.3),
        ]
    )
    lock = smooth(half, closed=True)
    return [lock, lock * (-1.0, 1.0)]


def _both(half: np.ndarray) -> np.ndarray:
    return smooth(np.concatenate((half, mirrored(half)[:-1])), closed=True)


def paint_bust(canvas: Canvas, subject: Identity, face: Face) -> None:
    """Paint ears, neck and clothing."""
    for sign in (-1.0, 1.0):
        ear = disc((sign * (subject.face_w + 0.02), 0.10), 0.085, subject.ear)
        shell = disc((sign * (subject.face_w + 0.035), 0.10), 0.045, subject.ear * 0.62)
        canvas.fill(ear, toned(subject.skin, 0.93), -0.1)
        canvas.fill(shell, toned(subject.skin, 0.86), -0.1)
    male = subject.gender == "male"
    neck_w = subject.jaw_w * (0.60 + (0.10 + 0.10 * male) * subject.maturity)
    _paint_neck(canvas, subject, face, neck_w)
    _paint_clothing(canvas, subject, neck_w)


def _paint_neck(canvas: Canvas, subject: Identity, face: Face, neck_w: float) -> None:
    shoulder_y = _shoulder_y(subject)
    half = [(neck_w, 0.4), (neck_w * 1.05, shoulder_y), (neck_w * 1.4, shoulder_y + 0.4)]
    neck = np.concatenate((half, mirrored(np.array(half))))
    canvas.fill(neck, toned(subject.skin, 0.86), _BEHIND)
    with canvas.within(neck):  # the chin's shadow
        canvas.fill(shifted(face.outline, 0.13), toned(subject.skin, 0.78), -0.1)
        canvas.fill(shifted(face.outline, 0.07), toned(subject.skin, 0.68), -0.1)


def _paint_clothing(canvas: Canvas, subject: Identity, neck_w: float) -> None:
    y, wide = _shoulder_y(subject), 1.05 + 0.35 * subject.maturity
    neckline = [(0.0, y + 0.14), (neck_w * 0.75, y + 0.07), (neck_w * 1.12, y - 0.06)]
    right = smooth(np.array([*neckline, (wide * 0.8, y + 0.14), (wide * 1.20, y + 0.50)]))
    below = np.array([(wide * 1.6, 3.0), (-wide * 1.6, 3.0)])
    canvas.fill(np.concatenate((right, below, mirrored(right))), subject.cloth, _BEHIND)
    collar = np.array(neckline)
    seam = smooth(np.concatenate((mirrored(collar)[:-1], collar)))
    canvas.fill(ribbon(seam, 0.05), toned(subject.cloth, 0.75), _BEHIND)


def _shoulder_y(subject: Identity) -> float:
    return subject.chin_y + 0.30


def paint_glasses(canvas: Canvas, subject: Identity) -> None:
    """Paint frames, temples and a gleam on the lenses."""
    color = toned(subject.hair, 0.45) if subject.parting > 0 else _FRAME
    angles = np.linspace(0, 2 * np.pi, 40)
    circle = np.stack((np.cos(angles), np.sin(angles)), axis=1)
    squarish = np.sign(circle) * np.abs(circle) ** 0.75
    lens_w = 0.245 * subject.glasses
    for sign in (-1.0, 1.0):
        rim = squarish * (lens_w, 0.165) + (sign * subject.eye_x, 0.01)
        canvas.line(rim, color, 0.026)
        temple = [(sign * (subject.eye_x + lens_w), -0.05), (sign * subject.face_w * 0.99, -0.06)]
        canvas.line(np.array(temple), color, 0.030)
        gleam = np.array([(-0.14, -0.11), (-0.06, -0.11), (-0.13, 0.08), (-0.19, 0.06)])
        with canvas.within(shifted(gleam, 0.0, sign * subject.eye_x), 0.16):
            canvas.fill(rim, _GLASS)
    reach = subject.eye_x - lens_w
    bridge = smooth(np.array([(-reach, -0.02), (0.0, -0.055), (reach, -0.02)]))
    canvas.line(bridge, color, 0.026)
