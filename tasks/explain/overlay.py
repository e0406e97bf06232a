"""Explanations as images: a red heat map over the face, and a simplified map in yellow."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from tasks.core.models.predictor import EmotionClassifier
from tasks.explain.lime_explainer import LimeExplanation, LimeSettings, explain_image

_RED = np.array([225.0, 0.0, 25.0])
_YELLOW = np.array([255.0, 221.0, 0.0])
_LUMA = np.array([0.299, 0.587, 0.114])
_FACE_BRIGHTNESS = 0.30  # of the face below the simplified map
_MAX_OPACITY = 0.85  # of the red, so that the face remains visible
_GAP_PX = 4


@dataclass(frozen=True)
class Panels:
    """A mean face `(S, S, 3)` from 0 to 255, and its maps `heat` and `top` `(S, S)` from 0 to 1."""

    face: np.ndarray
    heat: np.ndarray
    top: np.ndarray

    def red(self) -> np.ndarray:
        """Return the face in gray with the heat map in red over it, `(S, S, 3)` uint8."""
        return _blend(self._gray(), _RED, _MAX_OPACITY * self.heat)

    def yellow(self) -> np.ndarray:
        """Return the simplified map, yellow over the darkened face, `(S, S, 3)` uint8."""
        return _blend(_FACE_BRIGHTNESS * self._gray(), _YELLOW, self.top)

    def _gray(self) -> np.ndarray:
        """Return the face in gray: red is hard to distinguish from skin."""
        return np.repeat((self.face @ _LUMA)[..., None], 3, axis=2)


class Overlay:
    """Running mean of images and their maps, in the memory of one image."""

    def __init__(self, num_features: int) -> None:
        self.n = 0
        self._num_features = num_features
        self._sums: list[np.ndarray] = []

    def add(self, explanation: LimeExplanation) -> None:
        """Add an image to the mean."""
        layers = [
            explanation.image.astype(np.float64),
            positive_heatmap(explanation),
            top_superpixels(explanation, self._num_features).astype(np.float64),
        ]
        if self._sums:
            layers = [total + layer for total, layer in zip(self._sums, layers, strict=True)]
        self._sums = layers
        self.n += 1

    def panels(self) -> Panels:
        """Return the means; call `add` first."""
        face, heat, top = (total / self.n for total in self._sums)
        return Panels(face, heat, top)


def positive_heatmap(explanation: LimeExplanation) -> np.ndarray:
    """Return the positive weights as a map `(S, S)`, scaled so that the image's largest is 1.

    The scaling gives every image the same influence on a mean. Without positive weights, the map is
    zero.
    """
    positive = np.maximum(explanation.weights, 0.0)
    largest = positive.max()
    return (positive / largest if largest > 0 else positive)[explanation.segments]


def top_superpixels(explanation: LimeExplanation, num_features: int) -> np.ndarray:
    """Return the mask of the superpixels with the largest positive weights, `(S, S)` bool."""
    weights = explanation.weights
    top = np.argsort(-weights, kind="stable")[:num_features]
    return np.isin(explanation.segments, top[weights[top] > 0])


def draw_explanation(
    recognizer: EmotionClassifier, crop: np.ndarray, settings: LimeSettings
) -> np.ndarray:
    """Draw the explanation of a crop's most probable emotion, both panels side by side.

    The crop is `(H, W, 3)` uint8 RGB, the result `(H, 2 W + 4, 3)` uint8.
    """
    explanation = explain_image(recognizer, crop, settings)
    height, width = crop.shape[:2]
    heat = _enlarge(positive_heatmap(explanation), width, height)
    mask = top_superpixels(explanation, settings.num_features).astype(np.float64)
    top = _enlarge(mask, width, height)
    panels = Panels(crop.astype(np.float64), heat, top)
    gap = np.full((height, _GAP_PX, 3), 255, dtype=np.uint8)
    return np.concatenate([panels.red(), gap, panels.yellow()], axis=1)


def _blend(below: np.ndarray, color: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    opacity = opacity[..., None]
    mixed = below * (1 - opacity) + color * opacity
    return np.rint(np.clip(mixed, 0, 255)).astype(np.uint8)


def _enlarge(layer: np.ndarray, width: int, height: int) -> np.ndarray:
    image = Image.fromarray(layer.astype(np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.NEAREST), dtype=np.float64)
