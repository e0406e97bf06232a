"""Hair, in two layers: behind the head and over the skull."""

import numpy as np

from tasks.draw.canvas import Canvas, toned
from tasks.draw.curves import disc, mirrored, smooth, tapered
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


def paint_back_hair(canvas: Canvas, who: Identity) -> None:
    """Paint what falls behind face and neck."""
    dark = toned(who.hair, 0.72)
    wide = who.face_w + _VOLUME[who.hair_style]
    if who.hair_style == "bun":
        for radius, tone in ((0.25, 0.8), (0.20, 1.0)):
            knot = disc((0.10 * np.sign(who.parting), who.crown_y - 0.06), radius * 1.1, radius)
            canvas.fill(knot, toned(who.hair, tone), -0.3)
        return
    if who.hair_style not in ("bob", "long"):
        return
    bottom = 0.74 * who.chin_y if who.hair_style == "bob" else 1.55
    flare = 0.08 if who.hair_style == "bob" else 0.16
    half = np.array(
        [
            (0.0, who.crown_y - 0.02),
            (wide * 0.75, who.crown_y + 0.22),
            (wide * 1.02, -0.2),
            (wide + flare * 0.6, 0.4 * bottom),
            (wide + flare, 0.85 * bottom),
            (wide * 0.80, bottom),
            (wide * 0.3, bottom * 0.98),
        ]
    )
    canvas.fill(_both(half), dark, -0.25)


def paint_front_hair(canvas: Canvas, who: Identity) -> None:
    """Paint the cap of hair over the skull, its strands and its sheen."""
    cap = _cap(who)
    if who.hair_style == "curly":
        _paint_curls(canvas, who)
    canvas.fill(cap, who.hair)
    with canvas.within(cap):
        _paint_strands(canvas, who)
    if who.hair_style in ("bob", "long"):
        for lock in _locks(who):
            canvas.fill(lock, toned(who.hair, 0.94))


def hair_outline(who: Identity) -> np.ndarray:
    """Return the outline of the cap, for what the face's light leaves alone."""
    return _cap(who)


def _cap(who: Identity) -> np.ndarray:
    over = _VOLUME[who.hair_style]
    wide = who.face_w + over * 0.55
    burn = {"receding": -0.02, "crew": -0.12, "short": 0.02}.get(who.hair_style, 0.0)
    line_y = who.hairline_y
    if who.hair_style == "receding":
        line_y = who.crown_y + 0.16
    elif who.hair_style == "crew":
        line_y = max(line_y, -0.66)
    outer = np.array(
        [
            (who.face_w * 0.985, burn),
            (wide, -0.22),
            (wide * 0.93, -0.58),
            (wide * 0.62, who.crown_y + 0.10 - over * 0.4),
            (0.0, who.crown_y - over * 0.8),
        ]
    )
    inner = np.array(
        [
            (0.93 * who.face_w, -0.30),
            (0.80 * who.face_w, line_y + 0.15),
            (0.45 * who.face_w, line_y + 0.01),
        ]
    )
    dip = 0.05 if abs(who.parting) > 0.12 else 0.0
    middle = np.array([(who.parting * who.face_w, line_y - dip)])
    contour = (outer, mirrored(outer)[1:], inner * (-1.0, 1.0), middle, inner[::-1])
    return smooth(np.concatenate(contour), closed=True, steps=5)


def _paint_strands(canvas: Canvas, who: Identity) -> None:
    over = _VOLUME[who.hair_style]
    for index in range(_STRANDS):
        share = (index + 0.5) / _STRANDS * 2 - 1
        root = np.array((who.parting * who.face_w * 0.8, who.crown_y - over * 0.4))
        tip = np.array((share * who.face_w * 1.1, -0.28 - 0.25 * (1 - abs(share))))
        middle = np.array((share * who.face_w * 0.85, who.crown_y + 0.12 + 0.22 * share**2))
        strand = smooth(np.stack((root, middle, tip)))
        canvas.fill(tapered(strand, 0.024), toned(who.hair, (1.12, 0.88, 1.0)[index % 3]))


def _paint_curls(canvas: Canvas, who: Identity) -> None:
    wide = who.face_w + 0.06
    for index in range(15):
        angle = np.pi * (index + 0.5) / 15
        x, y = -wide * np.cos(angle), -0.18 + (who.crown_y + 0.16) * np.sin(angle)
        radius = 0.15 + 0.02 * ((index * 7) % 3)
        curl = disc((float(x), float(y)), radius, radius)
        canvas.fill(curl, toned(who.hair, 0.9 + 0.1 * (index % 2)))


def _locks(who: Identity) -> list[np.ndarray]:
    """Return the hair that frames the face on both sides."""
    bottom = 0.70 * who.chin_y if who.hair_style == "bob" else 1.30
    edge = who.face_w * 0.93
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
