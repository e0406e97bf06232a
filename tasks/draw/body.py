"""Paints what a face rests on and wears: ears, neck, clothing, glasses."""

import numpy as np

from tasks.draw.anatomy import Face
from tasks.draw.canvas import Canvas, toned
from tasks.draw.curves import disc, mirrored, ribbon, shifted, smooth
from tasks.draw.identity import Identity

_FRAME = (34.0, 22.0, 22.0)
_GLASS = (255.0, 255.0, 255.0)
_BEHIND = -0.2  # how far neck and clothing lie behind the face, in face units


def paint_bust(canvas: Canvas, who: Identity, face: Face) -> None:
    """Paint ears, neck and clothing."""
    for sign in (-1.0, 1.0):
        ear = disc((sign * (who.face_w + 0.02), 0.10), 0.085, who.ear)
        shell = disc((sign * (who.face_w + 0.035), 0.10), 0.045, who.ear * 0.62)
        canvas.fill(ear, toned(who.skin, 0.93), -0.1)
        canvas.fill(shell, toned(who.skin, 0.86), -0.1)
    male = who.gender == "male"
    neck_w = who.jaw_w * (0.60 + (0.10 + 0.10 * male) * who.maturity)
    _paint_neck(canvas, who, face, neck_w)
    _paint_clothing(canvas, who, neck_w)


def _paint_neck(canvas: Canvas, who: Identity, face: Face, neck_w: float) -> None:
    shoulder_y = _shoulder_y(who)
    half = [(neck_w, 0.4), (neck_w * 1.05, shoulder_y), (neck_w * 1.4, shoulder_y + 0.4)]
    neck = np.concatenate((half, mirrored(np.array(half))))
    canvas.fill(neck, toned(who.skin, 0.86), _BEHIND)
    with canvas.within(neck):  # the chin's shadow
        canvas.fill(shifted(face.outline, 0.13), toned(who.skin, 0.78), -0.1)
        canvas.fill(shifted(face.outline, 0.07), toned(who.skin, 0.68), -0.1)


def _paint_clothing(canvas: Canvas, who: Identity, neck_w: float) -> None:
    y, wide = _shoulder_y(who), 1.05 + 0.35 * who.maturity
    neckline = [(0.0, y + 0.14), (neck_w * 0.75, y + 0.07), (neck_w * 1.12, y - 0.06)]
    right = smooth(np.array([*neckline, (wide * 0.8, y + 0.14), (wide * 1.20, y + 0.50)]))
    below = np.array([(wide * 1.6, 3.0), (-wide * 1.6, 3.0)])
    canvas.fill(np.concatenate((right, below, mirrored(right))), who.cloth, _BEHIND)
    collar = np.array(neckline)
    seam = smooth(np.concatenate((mirrored(collar)[:-1], collar)))
    canvas.fill(ribbon(seam, 0.05), toned(who.cloth, 0.75), _BEHIND)


def _shoulder_y(who: Identity) -> float:
    return who.chin_y + 0.30


def paint_glasses(canvas: Canvas, who: Identity) -> None:
    """Paint frames, temples and a gleam on the lenses."""
    colour = toned(who.hair, 0.45) if who.parting > 0 else _FRAME
    angles = np.linspace(0, 2 * np.pi, 40)
    circle = np.stack((np.cos(angles), np.sin(angles)), axis=1)
    squarish = np.sign(circle) * np.abs(circle) ** 0.75
    lens_w = 0.245 * who.glasses
    for sign in (-1.0, 1.0):
        rim = squarish * (lens_w, 0.165) + (sign * who.eye_x, 0.01)
        canvas.line(rim, colour, 0.026)
        temple = [(sign * (who.eye_x + lens_w), -0.05), (sign * who.face_w * 0.99, -0.06)]
        canvas.line(np.array(temple), colour, 0.030)
        gleam = np.array([(-0.14, -0.11), (-0.06, -0.11), (-0.13, 0.08), (-0.19, 0.06)])
        with canvas.within(shifted(gleam, 0.0, sign * who.eye_x), 0.16):
            canvas.fill(rim, _GLASS)
    reach = who.eye_x - lens_w
    bridge = smooth(np.array([(-reach, -0.02), (0.0, -0.055), (reach, -0.02)]))
    canvas.line(bridge, colour, 0.026)
