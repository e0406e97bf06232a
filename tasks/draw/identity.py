"""Appearance of a subject: proportions by age and gender, colors, hair and glasses.

Lengths are in face units: y = 0 is the line of the eyes, y grows downwards, and an adult's face is
about 1.4 units wide. Children have a rounder face, larger and lower-set eyes, a smaller nose and
weaker brows.
"""

from dataclasses import dataclass

import numpy as np

Color = tuple[float, float, float]

HAIR_STYLES = ("short", "crew", "curly", "receding", "bob", "long", "bun")

# From light to deep; RGB.
_SKINS = np.array(
    [
        (246, 214, 194), (238, 198, 170), (226, 180, 146), (208, 158, 120),
        (184, 132, 96), (152, 104, 74), (122, 82, 58), (96, 64, 48),
    ]
)  # fmt: skip
_HAIRS = np.array(
    [(38, 30, 28), (62, 44, 34), (92, 62, 42), (130, 90, 56), (176, 134, 84), (140, 72, 42)]
)
_GRAY = np.array((176, 174, 172))
_IRISES = np.array([(74, 50, 34), (96, 66, 40), (92, 104, 66), (84, 116, 140), (108, 124, 130)])
_LIP_TINT = np.array((186, 78, 84))


@dataclass(frozen=True)
class Identity:
    """A subject's appearance at rest; lengths in face units, colors as RGB from 0 to 255."""

    age_years: int
    gender: str
    maturity: float
    face_w: float
    jaw_w: float
    chin_w: float
    chin_y: float
    crown_y: float
    eye_x: float
    eye_w: float
    eye_up: float
    eye_low: float
    eye_tilt: float
    iris_r: float
    brow_y: float
    brow_thick: float
    brow_arch: float
    brow_tilt: float
    nose_y: float
    nose_w: float
    mouth_y: float
    mouth_w: float
    lip_up: float
    lip_low: float
    mouth_curve: float
    ear: float
    lines: float
    skin: Color
    hair: Color
    brow: Color
    iris: Color
    lip: Color
    cloth: Color
    hair_style: str
    hairline_y: float
    parting: float
    stubble: float
    glasses: float


def draw_identity(age_years: int, gender: str, rng: np.random.Generator) -> Identity:
    """Sample a subject's appearance.

    Gender, female or male, shifts the means of proportions increasingly with age.
    """
    grown = float(np.interp(age_years, (3, 10, 18), (0.0, 0.5, 1.0)))
    male = grown if gender == "male" else 0.0
    skin = _between(_SKINS, rng)
    aged = max(0.0, (age_years - 30) / 30)
    hair = _between(_HAIRS[:4] if skin.mean() < 150 else _HAIRS, rng)
    hair = hair + (_GRAY - hair) * np.clip(rng.normal(aged * 0.6, 0.15), 0, 0.9) * (aged > 0)

    def size(child: float, adult: float, spread: float, of_male: float = 0.0) -> float:
        mean = child + (adult - child) * grown + of_male * male
        return float(mean * (1 + np.clip(rng.normal(0, spread), -2.2 * spread, 2.2 * spread)))

    def offset(spread: float) -> float:
        return float(np.clip(rng.normal(0, spread), -2 * spread, 2 * spread))

    nose_y = size(0.342, 0.425, 0.06, 0.015)
    return Identity(
        age_years=age_years,
        gender=gender,
        maturity=grown,
        face_w=size(0.73, 0.69, 0.04, 0.015),
        jaw_w=size(0.60, 0.50, 0.05, 0.06),
        chin_w=size(0.25, 0.21, 0.10, 0.05),
        chin_y=size(0.92, 1.06, 0.04, 0.05),
        crown_y=size(-1.10, -1.02, 0.03),
        eye_x=size(0.335, 0.325, 0.035),
        eye_w=size(0.168, 0.152, 0.07),
        eye_up=size(0.080, 0.064, 0.14, -0.004),
        eye_low=size(0.055, 0.045, 0.14),
        eye_tilt=offset(0.012),
        iris_r=size(0.079, 0.069, 0.03),
        brow_y=size(-0.235, -0.225, 0.05, 0.012),
        brow_thick=size(0.036, 0.043, 0.20, 0.017),
        brow_arch=size(0.030, 0.045, 0.25, -0.018),
        brow_tilt=offset(0.010),
        nose_y=nose_y,
        nose_w=size(0.124, 0.145, 0.10, 0.015),
        mouth_y=nose_y + size(0.236, 0.262, 0.09, 0.005),
        mouth_w=size(0.205, 0.230, 0.08, 0.01),
        lip_up=size(0.042, 0.050, 0.18, -0.012),
        lip_low=size(0.060, 0.070, 0.15, -0.012),
        mouth_curve=offset(0.010),
        ear=size(0.17, 0.16, 0.10, 0.01),
        lines=float(np.clip(aged * rng.uniform(0.2, 0.9), 0, 0.7)),
        skin=_rgb(skin),
        hair=_rgb(hair),
        brow=_rgb(hair * 0.78 + skin * (0.17 - 0.10 * grown)),
        iris=_rgb(_between(_IRISES[:2] if skin.mean() < 150 else _IRISES, rng)),
        lip=_rgb(skin * 0.52 + _LIP_TINT * rng.uniform(0.36, 0.48)),
        cloth=_rgb(rng.uniform(30, 215, 3)),
        hair_style=_hair_style(gender, age_years, rng),
        hairline_y=float(rng.uniform(-0.70, -0.56) - 0.05 * (1 - grown)),
        parting=float(rng.uniform(-0.35, 0.35)),
        stubble=float(rng.uniform(0.1, 0.5) if male > 0.95 and rng.random() < 0.35 else 0.0),
        glasses=float(rng.uniform(0.85, 1.1) if rng.random() < 0.12 else 0.0),
    )


def _between(palette: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Sample a color between two neighbors of a palette."""
    position = rng.uniform(0, len(palette) - 1)
    low = int(position)
    color: np.ndarray = palette[low] + (palette[low + 1] - palette[low]) * (position - low)
    return color + rng.normal(0, 4, 3)


def _rgb(color: np.ndarray) -> Color:
    red, green, blue = (float(value) for value in np.clip(color, 8, 250))
    return red, green, blue


def _hair_style(gender: str, age_years: int, rng: np.random.Generator) -> str:
    if gender == "female":
        weights = (0.08, 0.0, 0.10, 0.0, 0.27, 0.35, 0.20)
    elif age_years > 38:
        weights = (0.40, 0.20, 0.08, 0.30, 0.02, 0.0, 0.0)
    else:
        weights = (0.50, 0.22, 0.18, 0.0, 0.06, 0.04, 0.0)
    return str(rng.choice(HAIR_STYLES, p=weights))
