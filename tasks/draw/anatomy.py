"""Curves of a face, from the subject's proportions and the intensities of action units.

All points are in face units (see `identity`). "Left" is the left of the image: side 0 is left,
side 1 right. The effect of an action unit (AU) on a curve follows the FACS manual (Ekman, Friesen
and Hager 2002). Its size is chosen so that full intensity is clearly visible.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tasks.draw.action_units import Expression
from tasks.draw.curves import disc, smooth, tapered
from tasks.draw.identity import Identity

_SIDES = (-1.0, 1.0)


@dataclass(frozen=True)
class Eye:
    """One eye: lid lines from the nose outwards, and the center of the iris."""

    upper: np.ndarray
    lower: np.ndarray
    crease: np.ndarray
    iris: tuple[float, float]

    @property
    def opening(self) -> np.ndarray:
        """Return the outline of the visible part of the eyeball."""
        return np.concatenate((self.upper, self.lower[::-1]))


@dataclass(frozen=True)
class Mouth:
    """Lip lines from the left corner to the right one."""

    upper_outer: np.ndarray
    upper_inner: np.ndarray
    lower_inner: np.ndarray
    lower_outer: np.ndarray
    gap: float


@dataclass(frozen=True)
class Crease:
    """Outline and strength, from 0 to 1, of a furrow or bulge of the skin."""

    outline: np.ndarray
    strength: float


@dataclass(frozen=True)
class Face:
    """Curves of a face with an expression."""

    outline: np.ndarray
    brows: tuple[np.ndarray, np.ndarray]
    brow_lines: tuple[np.ndarray, np.ndarray]
    eyes: tuple[Eye, Eye]
    wings: tuple[np.ndarray, np.ndarray]
    nose_tip: tuple[float, float]
    mouth: Mouth
    furrows: Mapping[str, Crease]
    bulges: Mapping[str, Crease]


def build_face(subject: Identity, au: Expression) -> Face:
    """Return the curves of a subject's face with an expression."""
    return Face(
        outline=_outline(subject, au),
        brows=(_brow(subject, au, 0), _brow(subject, au, 1)),
        brow_lines=(brow_line(subject, au, 0), brow_line(subject, au, 1)),
        eyes=(_eye(subject, au, 0), _eye(subject, au, 1)),
        wings=(_wing(subject, au, 0), _wing(subject, au, 1)),
        nose_tip=(0.0, subject.nose_y - 0.05 - 0.015 * au.of(9)),
        mouth=_mouth(subject, au),
        furrows=_furrows(subject, au),
        bulges=_bulges(subject, au),
    )


def landmarks(face: Face) -> np.ndarray:
    """Return `(68, 2)` points in face units, numbered like iBUG's 68."""
    jaw = _jaw_samples(face.outline)
    left, right = face.eyes
    ridge = np.stack((np.zeros(4), np.linspace(0.0, 1.0, 4) * face.nose_tip[1]), axis=1)
    base_y = face.nose_tip[1] + 0.055
    wing = abs(face.wings[0][:, 0]).max()
    across = np.array((-0.85, -0.42, 0.0, 0.42, 0.85))
    base = np.stack((across * wing, base_y + 0.02 * (1 - np.abs(across))), axis=1)
    return np.concatenate(
        (
            jaw,
            _along(face.brow_lines[0][::-1], 5),
            _along(face.brow_lines[1], 5),
            ridge,
            base,
            _eye_points(left, outer_first=True),
            _eye_points(right, outer_first=False),
            _mouth_points(face.mouth),
        )
    )


def brow_line(subject: Identity, au: Expression, side: int) -> np.ndarray:
    """Return a brow's center line from the nose outwards."""
    share = np.array((0.0, 0.3, 0.62, 1.0))
    inner_x, outer_x = subject.eye_x - 0.215, subject.eye_x + 0.225
    lower = au.of(4, side)
    x = inner_x + (outer_x - inner_x) * share
    y = subject.brow_y - subject.brow_arch * np.array((0.0, 0.7, 1.0, -0.1))
    y = y + subject.brow_tilt * (1 - 2 * share)
    y = y - 0.115 * au.of(1, side) * np.array((1.0, 0.72, 0.22, 0.0))
    y = y - 0.110 * au.of(2, side) * np.array((0.12, 0.45, 1.0, 0.85))
    y = y + lower * np.array((0.090, 0.062, 0.034, 0.016))
    y = y + 0.035 * au.of(9, side) * np.array((1.0, 0.6, 0.2, 0.0))
    x = x - 0.050 * lower * np.array((1.0, 0.7, 0.3, 0.0))
    return smooth(np.stack((_SIDES[side] * x, y), axis=1))


def _brow(subject: Identity, au: Expression, side: int) -> np.ndarray:
    line = brow_line(subject, au, side)
    share = np.linspace(0, 1, len(line))
    thick = np.interp(share, (0, 0.08, 0.45, 0.75, 1.0), (0.55, 1.0, 1.05, 0.7, 0.12))
    half = subject.brow_thick * thick
    down = half[:, None] * (0.0, 1.0)
    return np.concatenate((line - 0.9 * down, (line + down)[::-1]))


def _outline(subject: Identity, au: Expression) -> np.ndarray:
    drop = 0.15 * au.of(26)
    puff = 0.018 * au.of(12) + 0.010 * au.of(6) + 0.020 * au.of(20)
    skull = subject.crown_y + 0.09
    right = np.array(
        [
            (0.0, skull),
            (0.42 * subject.face_w, skull + 0.06),
            (0.84 * subject.face_w, skull + 0.38),
            (subject.face_w, -0.16),
            (subject.face_w * 0.985, 0.16),
            (subject.jaw_w * 0.62 + subject.face_w * 0.36 + puff, 0.46 * subject.chin_y + 0.04),
            (subject.jaw_w + puff, 0.72 * subject.chin_y + drop * 0.45),
            (subject.chin_w + 0.13, 0.925 * subject.chin_y + drop * 0.9),
            (subject.chin_w * 0.55, 0.995 * subject.chin_y + drop),
        ]
    )
    return smooth(np.concatenate((right, (right[1:] * (-1.0, 1.0))[::-1])), closed=True, steps=6)


def _eye(subject: Identity, au: Expression, side: int) -> Eye:
    shut, wide_open = au.of(43, side), au.of(5, side)
    tight, cheek, frown = au.of(7, side), au.of(6, side), au.of(4, side)
    up = max(subject.eye_up + 0.050 * wide_open - 0.016 * tight - 0.008 * (cheek + frown), 0.020)
    low = max(subject.eye_low - 0.030 * tight - 0.026 * cheek + 0.008 * au.of(16, side), 0.008)
    x = np.array((-1.0, -0.62, -0.05, 0.55, 1.0))  # from the nose outwards
    level = -subject.eye_tilt * x
    closed = level + 0.030 * np.array((0.0, 0.7, 1.0, 0.75, 0.0))  # sags below the corners
    upper = level - up * np.array((0.0, 0.72, 1.0, 0.74, 0.0))
    lower = level + low * np.array((0.0, 0.62, 0.95, 0.85, 0.0))
    upper, lower = upper + shut * (closed - upper), lower + shut * (closed + 0.001 - lower)
    fold = max(0.040 - 0.022 * wide_open - 0.012 * frown, 0.010) * (1 + 0.6 * shut)
    crease = upper - fold * np.array((0.1, 0.75, 1.0, 0.9, 0.5))
    across = _SIDES[side] * (subject.eye_x + x * subject.eye_w * (1 - 0.05 * cheek))
    upper_line, lower_line, crease_line = (
        smooth(np.stack((across, down), axis=1)) for down in (upper, lower, crease)
    )
    iris = (_SIDES[side] * subject.eye_x, -0.004 - 0.004 * wide_open)
    return Eye(upper_line, lower_line, crease_line, iris)


def _wing(subject: Identity, au: Expression, side: int) -> np.ndarray:
    lift = 0.045 * au.of(9, side)
    wide = subject.nose_w * (1 + 0.12 * au.of(9, side) + 0.05 * au.of(12, side))
    x = np.array((0.80, 1.02, 0.98, 0.66)) * wide
    y = subject.nose_y + np.array((-0.115, -0.065, -0.010, 0.010)) - lift
    return smooth(np.stack((_SIDES[side] * x, y), axis=1))


def mouth_corner(subject: Identity, au: Expression, side: int) -> tuple[float, float]:
    """Return the position of a mouth corner."""
    pull, stretch, drop = au.of(12, side), au.of(20, side), au.of(26)
    x = subject.mouth_w + 0.085 * pull + 0.090 * stretch + 0.035 * au.of(14, side)
    x -= 0.045 * au.of(23, side) + 0.055 * drop * (1 - 0.7 * min(stretch + pull, 1.0))
    y = subject.mouth_y - subject.mouth_curve - 0.095 * pull + 0.085 * au.of(15, side)
    y += 0.030 * stretch + 0.045 * drop - 0.020 * au.of(14, side) + 0.012 * au.of(16, side)
    return _SIDES[side] * x, y


def _mouth(subject: Identity, au: Expression) -> Mouth:
    corners = (mouth_corner(subject, au, 0), mouth_corner(subject, au, 1))
    thin = (1 - 0.72 * au.of(23)) * (1 - 0.25 * au.of(12)) * (1 - 0.30 * au.of(20))
    up, low = subject.lip_up * thin, subject.lip_low * thin * (1 + 0.25 * au.of(16))
    gap = 0.055 * au.of(25) + 0.27 * au.of(26) + 0.045 * au.of(16) + 0.020 * au.of(20)
    gap = gap * (1 - au.of(23))
    raised = 0.045 * au.of(9) + 0.020 * au.of(25)
    middle_y = subject.mouth_y - 0.012 * (au.of(12) + au.of(15)) - 0.6 * raised
    top = middle_y - 0.12 * gap
    bottom = middle_y + 0.88 * gap + 0.5 * raised * (gap > 0) + 0.012 * au.of(16)
    dip = 0.003 if gap < 0.03 else -0.003  # closed lips meet in a line with a small dip
    return Mouth(
        upper_outer=_lip_line(corners, top - up, bow=-0.006, dip=0.012),
        upper_inner=_lip_line(corners, top, bow=0.003, dip=dip),
        lower_inner=_lip_line(corners, bottom, bow=0.003, dip=dip),
        lower_outer=_lip_line(corners, bottom + low, bow=0.0, dip=0.0),
        gap=gap,
    )


def _lip_line(
    corners: tuple[tuple[float, float], tuple[float, float]],
    middle_y: float,
    bow: float,
    dip: float,
) -> np.ndarray:
    """Return a line between the corners through the middle's height, shaped like Cupid's bow."""
    left, right = np.array(corners)
    share = np.array((-1.0, -0.62, -0.26, 0.0, 0.26, 0.62, 1.0))
    corner = np.where(share[:, None] < 0, left, right)
    full = 1 - np.abs(share) ** 2.2
    x = np.abs(share) * corner[:, 0] + (1 - np.abs(share)) * (left[0] + right[0]) * 0.15
    y = corner[:, 1] + (middle_y - corner[:, 1]) * full
    y = y + np.array((0.0, 0.5 * bow, bow, bow + dip, bow, 0.5 * bow, 0.0))
    return smooth(np.stack((x, y), axis=1))


def _furrows(subject: Identity, au: Expression) -> dict[str, Crease]:
    """Return the furrows caused by action units and by age."""
    soft = 0.82 + 0.18 * subject.maturity  # young skin folds less
    furrows: dict[str, Crease] = {}
    raised = 0.75 * au.of(1) + 0.6 * au.of(2) - 0.4 * au.of(4)
    for index, y in enumerate((-0.42, -0.50, -0.58)):
        y = y - 0.04 * au.of(2) - 0.02 * (1 - subject.maturity)
        wide = 0.33 - 0.05 * index
        arc = smooth(np.array([(-wide, y + 0.012), (0, y - 0.012), (wide, y + 0.012)]))
        strength = float(np.clip(soft * raised + 0.5 * subject.lines, 0, 1))
        furrows[f"forehead {index}"] = Crease(tapered(arc, 0.022), strength)
    for side, sign in enumerate(_SIDES):
        furrows.update(_side_furrows(subject, au, side, sign, soft))
    return furrows


def _side_furrows(
    subject: Identity, au: Expression, side: int, sign: float, soft: float
) -> dict[str, Crease]:
    flip = np.array((sign, 1.0))

    def crease(points: list[tuple[float, float]], width: float, strength: float) -> Crease:
        line = smooth(np.asarray(points)) * flip
        return Crease(tapered(line, width), float(np.clip(strength, 0, 1)))

    wing_x = subject.nose_w * 1.05
    corner_x, corner_y = mouth_corner(subject, au, side)
    corner_x = abs(corner_x)
    outer_x = subject.eye_x + subject.eye_w
    nose, pull, cheek = au.of(9, side), au.of(12, side), au.of(6, side)
    stretch = au.of(20, side)
    frown = soft * (au.of(4, side) + 0.35 * nose) + 0.4 * subject.lines
    furrows = {
        f"frown {side}": crease([(0.050, -0.30), (0.040, -0.20), (0.055, -0.12)], 0.024, frown),
        f"fold {side}": crease(
            [
                (wing_x + 0.015, subject.nose_y - 0.09 - 0.05 * nose),
                (wing_x + 0.085, subject.nose_y + 0.03 - 0.04 * nose),
                (corner_x + 0.055, (subject.nose_y + corner_y) / 2 + 0.05),
                (corner_x + 0.075, corner_y + 0.02),
            ],
            0.026,
            0.12 * subject.maturity
            + 0.6 * subject.lines
            + soft * (0.62 * pull + 0.6 * nose + 0.2 * cheek),
        ),
        f"pouch {side}": crease(
            [
                (subject.eye_x - subject.eye_w * 0.9, subject.eye_low + 0.035),
                (subject.eye_x, subject.eye_low + 0.075 - 0.03 * cheek),
                (subject.eye_x + subject.eye_w, subject.eye_low + 0.035),
            ],
            0.022,
            0.10 + 0.3 * subject.lines + soft * (0.55 * cheek + 0.5 * au.of(7, side)),
        ),
        f"corner {side}": crease(
            [(corner_x + 0.02, corner_y - 0.01), (corner_x + 0.045, corner_y + 0.06)],
            0.024,
            soft * (0.7 * au.of(15, side) + 0.6 * au.of(14, side) + 0.25 * stretch),
        ),
    }
    for index, rise in enumerate((-0.055, 0.0, 0.05)):
        furrows[f"crow {side}{index}"] = crease(
            [(outer_x + 0.035, 0.01 + rise * 0.4), (outer_x + 0.12, 0.012 + rise * 1.3)],
            0.018,
            soft * 0.85 * cheek + 0.4 * subject.lines,
        )
    for index, y in enumerate((0.03, 0.085, 0.14)):
        furrows[f"root {side}{index}"] = crease(
            [(0.015, y - 0.018), (0.075, y), (0.115, y + 0.035)], 0.020, soft * 0.9 * nose
        )
    return furrows


def _bulges(subject: Identity, au: Expression) -> dict[str, Crease]:
    """Return the raised cheeks, which catch the light."""
    bulges: dict[str, Crease] = {}
    for side, sign in enumerate(_SIDES):
        strength = 0.55 * au.of(6, side) + 0.45 * au.of(12, side)
        y = subject.nose_y * 0.72 + 0.03 - 0.035 * au.of(6, side)
        cheek = disc((sign * (subject.eye_x + 0.035), y), 0.125, 0.095)
        bulges[f"cheek {side}"] = Crease(cheek, float(np.clip(strength, 0, 1)))
    return bulges


def _jaw_samples(outline: np.ndarray) -> np.ndarray:
    """Return 17 points along the outline from the left temple over the chin to the right one."""
    right_half = outline[: len(outline) // 2 + 1]  # from the crown down the right side to the chin
    below = right_half[right_half[:, 1] > -0.10]
    right = _along(np.concatenate((below, [(0.0, outline[:, 1].max())])), 9)
    left = right[:-1] * (-1.0, 1.0)
    return np.concatenate((left, right[::-1]))


def _along(line: np.ndarray, count: int) -> np.ndarray:
    """Return `count` equidistant points along a line."""
    steps = np.hypot(*np.diff(line, axis=0).T)
    lengths = np.concatenate(([0.0], np.cumsum(steps)))
    wanted = np.linspace(0, lengths[-1], count)
    return np.stack([np.interp(wanted, lengths, line[:, axis]) for axis in (0, 1)], axis=1)


def _eye_points(eye: Eye, outer_first: bool) -> np.ndarray:
    upper, lower = _along(eye.upper, 4), _along(eye.lower, 4)  # from the nose outwards
    if outer_first:
        return np.concatenate((upper[::-1], lower[1:3]))
    return np.concatenate((upper, lower[::-1][1:3]))


def _mouth_points(mouth: Mouth) -> np.ndarray:
    upper, lower = _along(mouth.upper_outer, 7), _along(mouth.lower_outer, 7)
    inner_up, inner_low = _along(mouth.upper_inner, 7), _along(mouth.lower_inner, 7)
    return np.concatenate(
        (upper, lower[::-1][1:-1], inner_up[[0, 2, 3, 4, 6]], inner_low[::-1][[2, 3, 4]])
    )
