"""Explanations as pictures: red over the face, and yellow on the simplified map."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from tasks.core.models.recogniser import Recogniser
from tasks.explain.by_lime import Explanation, LimeSettings, explain_picture

_RED = np.array([225.0, 0.0, 25.0])
_YELLOW = np.array([255.0, 221.0, 0.0])
_LUMA = np.array([0.299, 0.587, 0.114])
_DARK = 0.30  # how much of the face is left on the simplified map, for orientation
_STRONGEST = 0.85  # of the red, so that the face shows through
_GAP_PX = 4


@dataclass(frozen=True)
class Panels:
    """A mean face `(S, S, 3)` from 0 to 255, and its maps `heat` and `top` `(S, S)` from 0 to 1."""

    face: np.ndarray
    heat: np.ndarray
    top: np.ndarray

    def red(self) -> np.ndarray:
        """Return the face in grey with the heat in red over it, `(S, S, 3)` uint8."""
        return _blend(self._grey(), _RED, _STRONGEST * self.heat)

    def yellow(self) -> np.ndarray:
        """Return the simplified map, yellow over the darkened face, `(S, S, 3)` uint8."""
        return _blend(_DARK * self._grey(), _YELLOW, self.top)

    def _grey(self) -> np.ndarray:
        """Turn the face grey: red is hard to tell from skin."""
        return np.repeat((self.face @ _LUMA)[..., None], 3, axis=2)


class Overlay:
    """The running mean of pictures and of their maps; memory is that of one picture."""

    def __init__(self, top_features: int) -> None:
        self.n = 0
        self._top_features = top_features
        self._sums: list[np.ndarray] = []

    def add(self, explanation: Explanation) -> None:
        """Lay one more picture over those before."""
        layers = [
            explanation.picture.astype(np.float64),
            positive_heat(explanation),
            top_superpixels(explanation, self._top_features).astype(np.float64),
        ]
        if self._sums:
            layers = [total + layer for total, layer in zip(self._sums, layers, strict=True)]
        self._sums = layers
        self.n += 1

    def panels(self) -> Panels:
        """Return the means; only after `add`."""
        face, heat, top = (total / self.n for total in self._sums)
        return Panels(face, heat, top)


def positive_heat(explanation: Explanation) -> np.ndarray:
    """Return the positive weights as a map `(S, S)`, the picture's largest being 1.

    So every picture counts alike in a mean, whatever the probabilities that its weights explain;
    a picture without a positive weight gives zeros.
    """
    positive = np.maximum(explanation.weights, 0.0)
    largest = positive.max()
    return (positive / largest if largest > 0 else positive)[explanation.segments]


def top_superpixels(explanation: Explanation, top_features: int) -> np.ndarray:
    """Return where the superpixels with the largest positive weights are, `(S, S)` bool."""
    weights = explanation.weights
    top = np.argsort(-weights, kind="stable")[:top_features]
    return np.isin(explanation.segments, top[weights[top] > 0])


def draw_explanation(
    recogniser: Recogniser, crop: np.ndarray, settings: LimeSettings
) -> np.ndarray:
    """Explain one crop and draw it: red on the picture, beside it the simplified map in yellow.

    Parameters
    ----------
    recogniser
        The model; its most probable answer is explained.
    crop
        `(H, W, 3)` uint8 RGB.
    settings
        How (params of the stage).

    Returns
    -------
    numpy.ndarray
        `(H, 2 W + 4, 3)` uint8.
    """
    explanation = explain_picture(recogniser, crop, settings)
    height, width = crop.shape[:2]
    heat = _enlarge(positive_heat(explanation), width, height)
    shown = top_superpixels(explanation, settings.top_features).astype(np.float64)
    top = _enlarge(shown, width, height)
    panels = Panels(crop.astype(np.float64), heat, top)
    gap = np.full((height, _GAP_PX, 3), 255, dtype=np.uint8)
    return np.concatenate([panels.red(), gap, panels.yellow()], axis=1)


def _blend(below: np.ndarray, colour: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    opacity = opacity[..., None]
    mixed = below * (1 - opacity) + colour * opacity
    return np.rint(np.clip(mixed, 0, 255)).astype(np.uint8)


def _enlarge(layer: np.ndarray, width: int, height: int) -> np.ndarray:
    picture = Image.fromarray(layer.astype(np.float32))
    return np.asarray(picture.resize((width, height), Image.Resampling.NEAREST), dtype=np.float64)
