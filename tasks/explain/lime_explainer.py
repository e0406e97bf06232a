"""LIME on one image: which superpixels raise the probability of the predicted emotion.

Ribeiro, Singh and Guestrin 2016, "Why Should I Trust You?", doi 10.1145/2939672.2939778, with the
authors' package `lime`. The model classifies copies of the image in which a random half of the
superpixels is hidden. A ridge regression of the emotion's probability on visibility gives each
superpixel its weight.

Choices made here:
- Every superpixel is fitted and sorting comes afterwards. For six or fewer features the package
  uses forward selection, which is slower and fits worse.
- `random_seed` of `explain_instance` affects only the segmentation, so the explainer is seeded.
- The seed is derived from the image's ID, so weights depend neither on the other images nor on
  the worker.
- Filling a hidden superpixel with its own mean color (the package's default) removes lines and
  textures and keeps the perturbed images close to the training data, but it hardly hides a
  superpixel of uniform color. One color for all superpixels hides more and adds artificial edges.

Segmentation of a face crop into superpixels, the units that LIME shows and hides.

The segmentation runs on a copy of the crop of fixed size. All models are therefore explained by the
same superpixels, and the parameters do not depend on a model's input size.
Quickshift: Vedaldi and Soatto 2008, "Quick shift and kernel methods for mode seeking". SLIC:
Achanta et al. 2012, doi 10.1109/TPAMI.2012.120. Both use scikit-image.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from lime.lime_image import LimeImageExplainer
from PIL import Image
from pydantic import Field
from skimage.segmentation import quickshift, slic
from threadpoolctl import threadpool_limits

from tasks.core.models.predictor import EmotionClassifier, prepare
from tasks.core.params import Section

Classify = Callable[[np.ndarray], np.ndarray]  # (N, S, S, 3) uint8 to (N, K) probabilities
_GRAY = 128
_MIN_PROBABILITY_RANGE = 1e-6  # below this, there is nothing to explain


class Quickshift(Section):
    """Parameters of quickshift; lengths in pixels of the segmented copy."""

    kernel_size: Annotated[float, Field(ge=1)]
    max_dist: Annotated[float, Field(gt=0)]
    ratio: Annotated[float, Field(ge=0, le=1)]


class Slic(Section):
    """Parameters of SLIC."""

    n_segments: Annotated[int, Field(ge=2)]
    compactness: Annotated[float, Field(gt=0)]
    sigma: Annotated[float, Field(ge=0)]


class Superpixels(Section):
    """Segmentation parameters; `superpixel_side_px` is the side of the segmented copy."""

    superpixels: Literal["quickshift", "slic"]
    superpixel_side_px: Annotated[int, Field(ge=16)]
    quickshift: Quickshift
    slic: Slic


def segment(crop: np.ndarray, side_px: int, params: Superpixels, seed: int) -> np.ndarray:
    """Segment a crop into superpixels.

    Parameters
    ----------
    crop
        `(H, W, 3)` uint8 RGB.
    side_px
        Side of the returned map: the model's input size.
    seed
        Breaks quickshift's ties; SLIC has none.

    Returns
    -------
    numpy.ndarray
        `(side_px, side_px)` int64 labels 0 … n - 1 without gaps, in row-major order of appearance.
        LIME numbers its features from 0; with labels from 1, SLIC's default, it would never hide
        the last superpixel.
    """
    copy_px = params.superpixel_side_px
    copy = np.asarray(Image.fromarray(crop).resize((copy_px, copy_px), Image.Resampling.BILINEAR))
    if params.superpixels == "quickshift":
        labels = quickshift(copy, rng=seed, channel_axis=-1, **params.quickshift.model_dump())
    else:
        labels = slic(copy, start_label=0, channel_axis=-1, **params.slic.model_dump())
    nearest = (2 * np.arange(side_px) + 1) * copy_px // (2 * side_px)
    return _number_by_appearance(labels[np.ix_(nearest, nearest)])


def _number_by_appearance(labels: np.ndarray) -> np.ndarray:
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].reshape(labels.shape)


class LimeSettings(Superpixels):
    """Parameters of an explanation.

    Attributes
    ----------
    num_samples
        Perturbed copies, including the unperturbed image.
    hide_color
        Fill of hidden superpixels: the superpixel's mean color, the image's mean color, or mid
        gray.
    kernel_width
        Width of LIME's exponential kernel on the cosine distance to the unperturbed image.
    num_features
        Maximum number of superpixels on a simplified map: those with the largest positive weights.
    """

    num_samples: Annotated[int, Field(ge=20)]
    hide_color: Literal["superpixel_mean", "picture_mean", "gray"]
    kernel_width: Annotated[float, Field(gt=0)]
    batch_size: Annotated[int, Field(ge=1)]
    num_features: Annotated[int, Field(ge=1)]
    seed: int


@dataclass(frozen=True)
class LimeExplanation:
    """LIME weights of one image.

    Attributes
    ----------
    emotion
        The explained class.
    probability
        The model's probability of `emotion` for the unperturbed image.
    picture
        `(S, S, 3)` uint8 RGB, the crop at the model's input size.
    segments
        `(S, S)` superpixels 0 … n - 1.
    weights
        `(n,)` float64: by how much the probability rises when the superpixel is visible.
    r2
        The regression's weighted R² on its own samples, from 0 to 1; 0 where the probability was
        constant.
    r2_adjusted
        R² adjusted for the number of superpixels; may be negative.
    """

    emotion: str
    probability: float
    image: np.ndarray
    segments: np.ndarray
    weights: np.ndarray
    r2: float
    r2_adjusted: float


def explain_image(
    recognizer: EmotionClassifier,
    crop: np.ndarray,
    settings: LimeSettings,
    emotion: str | None = None,
    key: str | None = None,
) -> LimeExplanation:
    """Explain a recognizer's prediction for a face crop.

    A model with grayscale input receives the perturbed color copies converted to gray.

    Parameters
    ----------
    crop
        `(H, W, 3)` uint8 RGB.
    emotion
        The class to explain; None: the most probable one.
    key
        The image's ID, which its seed is derived from; None: the digest of its pixels.
    """
    spec = recognizer.spec
    image = prepare(crop[None], spec.model_copy(update={"color": "rgb"}))[0]

    def classify(images: np.ndarray) -> np.ndarray:
        return recognizer.predict_prepared(recognizer.prepare(images))

    seed = _seed(settings.seed, hashlib.sha256(crop.tobytes()).hexdigest() if key is None else key)
    if emotion is None:
        emotion = spec.labels[int(classify(image[None])[0].argmax())]
    segments = segment(crop, spec.input_size_px, settings, seed)
    return explain(classify, spec.labels, image, segments, emotion, settings, seed)


def explain(
    classify: Classify,
    labels: Sequence[str],
    image: np.ndarray,
    segments: np.ndarray,
    emotion: str,
    settings: LimeSettings,
    seed: int,
) -> LimeExplanation:
    """Compute the weights of one image's superpixels.

    Parameters
    ----------
    labels
        The K emotions, in the order of the classifier's columns.
    picture
        `(S, S, 3)` uint8.
    segments
        `(S, S)` superpixels 0 … n - 1.
    emotion
        The class to explain, one of `labels`.
    """
    index = list(labels).index(emotion)
    explainer = _Explainer(
        kernel_width=settings.kernel_width,
        feature_selection="none",
        random_state=seed,
    )
    with threadpool_limits(1):  # the split of sums among threads would change the last bits
        result = explainer.explain_instance(
            image,
            classify,
            labels=(index,),
            top_labels=None,
            hide_color=_fill(image, settings.hide_color),
            num_samples=settings.num_samples,
            batch_size=settings.batch_size,
            segmentation_fn=lambda _: segments,
            random_seed=0,  # only seeds the package's own segmentation
        )
    weights = np.zeros(int(segments.max()) + 1)
    for superpixel, weight in result.local_exp[index]:
        weights[superpixel] = weight
    r2 = float(np.clip(result.score, 0.0, 1.0))
    if np.ptp(explainer.probabilities[:, index]) < _MIN_PROBABILITY_RANGE:
        weights[:], r2 = 0.0, 0.0
    probability = float(explainer.probabilities[0, index])
    adjusted = _adjusted(r2, settings.num_samples, len(weights))
    return LimeExplanation(emotion, probability, image, segments, weights, r2, adjusted)


class _Explainer(LimeImageExplainer):
    """LIME's explainer, perturbing whole batches at once; same results, no progress bar.

    `answers` holds the model's probabilities for the last image, `(samples, K)`.
    """

    probabilities: np.ndarray

    def data_labels(
        self,
        image: np.ndarray,
        fudged_image: np.ndarray,
        segments: np.ndarray,
        classifier_fn: Classify,
        num_samples: int,
        batch_size: int = 10,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the visibility of superpixels, `(samples, n)` of 0 and 1, and probabilities."""
        n_superpixels = int(segments.max()) + 1
        visible = self.random_state.randint(0, 2, num_samples * n_superpixels)
        visible = visible.reshape(num_samples, n_superpixels)
        visible[0] = 1
        probabilities = []
        for start in range(0, num_samples, batch_size):
            mask = visible[start : start + batch_size, segments] == 1  # (B, S, S)
            probabilities.append(classifier_fn(np.where(mask[..., None], image, fudged_image)))
        self.probabilities = np.concatenate(probabilities)
        return visible, self.probabilities


def _fill(image: np.ndarray, hide: str) -> tuple[int, ...] | None:
    if hide == "superpixel_mean":
        return None  # the package's default
    if hide == "gray":
        return (_GRAY,) * 3
    return tuple(int(value) for value in np.rint(image.mean(axis=(0, 1))))


def _adjusted(r2: float, samples: int, n_superpixels: int) -> float:
    """Return adjusted R²; NaN where there are as many superpixels as samples."""
    degrees = samples - n_superpixels - 1
    return 1 - (1 - r2) * (samples - 1) / degrees if degrees > 0 else float("nan")


def _seed(seed: int, key: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{key}".encode()).digest()[:4], "big") >> 1
