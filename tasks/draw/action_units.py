"""Emotions as intensities of action units (AUs) of the Facial Action Coding System.

Prototypes follow EMFACS (Ekman and Friesen 1983) and, for pain, Prkachin and Solomon (2008).
Cohorts differ in the intensity, its variance and the mixing of emotions; the label is always the
intended emotion.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from pydantic import Field

from tasks.core.params import Section

UNITS: Mapping[int, str] = {
    1: "inner brow raiser",
    2: "outer brow raiser",
    4: "brow lowerer",
    5: "upper lid raiser",
    6: "cheek raiser",
    7: "lid tightener",
    9: "nose wrinkler",
    12: "lip corner puller",
    14: "dimpler",
    15: "lip corner depressor",
    16: "lower lip depressor",
    20: "lip stretcher",
    23: "lip tightener",
    25: "lips part",
    26: "jaw drop",
    43: "eyes closed",
}

PROTOTYPES: Mapping[str, tuple[int, ...]] = {
    "anger": (4, 5, 7, 23),
    "disgust": (9, 15, 16),
    "fear": (1, 2, 4, 5, 20, 26),
    "happiness": (6, 12),
    "neutral": (),
    "sadness": (1, 4, 15),
    "surprise": (1, 2, 5, 26),
    "pain": (4, 6, 7, 9, 43),
    "contempt": (12, 14),
}

# AUs that occur in a random half of the images of an emotion.
_OPTIONAL: Mapping[str, tuple[int, ...]] = {"happiness": (25,), "pain": (25,), "disgust": (25,)}
_OPTIONAL_PROBABILITY = 0.5

# The emotion whose AUs are mixed in (`unit_mixing`).
NEIGHBOURS: Mapping[str, str] = {
    "anger": "sadness",
    "disgust": "anger",
    "fear": "surprise",
    "happiness": "surprise",
    "sadness": "disgust",
    "surprise": "happiness",
    "pain": "sadness",
    "contempt": "happiness",
}

# Fear drops the jaw and lowers the brow less than surprise and anger do.
_SHARES: Mapping[tuple[str, int], float] = {
    ("fear", 26): 0.45,
    ("fear", 4): 0.6,
    ("contempt", 12): 0.5,
}
_ONE_SIDED = ("contempt",)
_UNIT_SPREAD = 0.12  # standard deviation of an AU's factor on the image's intensity
_SIDE_SPREAD = 0.06  # standard deviation of the factors of the two sides of the face
_MIN_INTENSITY = 0.15  # of an emotion other than neutral


class Style(Section):
    """Distribution of the expressions of a cohort."""

    intensity_mean: float = Field(gt=0, le=1)
    intensity_sd: float = Field(ge=0, le=1)
    unit_mixing: float = Field(ge=0, lt=1)


@dataclass(frozen=True)
class Expression:
    """Intensities of action units, from 0 (rest) to 1 (full).

    `units` omits AUs at rest; `sides` are factors of the image's left and right half.
    """

    units: Mapping[int, float] = field(default_factory=dict)
    sides: tuple[float, float] = (1.0, 1.0)

    def of(self, unit: int, side: int | None = None) -> float:
        """Return an AU's intensity on one side of the face (0 left, 1 right) or on average."""
        intensity = self.units.get(unit, 0.0)
        left, right = self.sides
        return intensity * ((left + right) / 2 if side is None else self.sides[side])


def express(emotion: str, style: Style, rng: np.random.Generator) -> Expression:
    """Sample the expression of one image; neutral is the face at rest.

    The intensity is normally distributed. `unit_mixing` is the mean share of it that goes to the
    AUs of the neighboring emotion.
    """
    intensity = float(np.clip(rng.normal(style.intensity_mean, style.intensity_sd), 0.0, 1.0))
    mixing = float(np.clip(style.unit_mixing * rng.uniform(0.5, 1.5), 0.0, 0.95))
    factors = {unit: float(rng.normal(1.0, _UNIT_SPREAD)) for unit in UNITS}
    parts_lips = bool(rng.random() < _OPTIONAL_PROBABILITY)
    sides = _sides(emotion, rng)
    if not PROTOTYPES[emotion]:
        return Expression()
    units: dict[int, float] = {}
    for name, share in ((emotion, 1.0 - mixing), (NEIGHBOURS[emotion], mixing)):
        for unit in PROTOTYPES[name] + (_OPTIONAL.get(name, ()) if parts_lips else ()):
            units[unit] = units.get(unit, 0.0) + share * _SHARES.get((name, unit), 1.0)
    intensity = max(intensity, _MIN_INTENSITY)
    return Expression(
        {
            unit: float(np.clip(intensity * weight * factors[unit], 0.0, 1.0))
            for unit, weight in sorted(units.items())
            if weight > 0
        },
        sides,
    )


def _sides(emotion: str, rng: np.random.Generator) -> tuple[float, float]:
    left, right = (float(value) for value in rng.normal(1.0, _SIDE_SPREAD, 2))
    if emotion in _ONE_SIDED:
        return (left, 0.1) if rng.random() < 0.5 else (0.1, right)
    return left, right
