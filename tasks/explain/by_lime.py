"""LIME on one picture: which superpixels speak for the emotion that a model answered.

Ribeiro, Singh and Guestrin 2016, "Why Should I Trust You?", doi 10.1145/2939672.2939778, with the
authors' package `lime`. Copies of the picture with half of their superpixels hidden at random are
shown to the model, and a ridge regression from shown or hidden to the emotion's probability gives
each superpixel its weight.

Kept in mind where the package is used:
- every superpixel is fitted and sorting comes afterwards: the package's choice of six or fewer
  features is a forward selection, slower and with a worse fit;
- `random_seed` of `explain_instance` is for the segmentation alone, so the explainer is seeded;
- the seed comes from the picture's identity, so that a picture's weights depend neither on the
  other pictures nor on the worker that explains it;
- how a hidden superpixel is filled is a choice: its own mean colour (the package's default) hides
  lines and textures and keeps the face's colours, so that the model is asked about pictures like
  those it knows, but it hardly hides a superpixel of even colour; one colour for all hides more
  and draws edges that no face has.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from lime.lime_image import LimeImageExplainer
from pydantic import Field
from threadpoolctl import threadpool_limits

from tasks.core.models.recogniser import Recogniser, prepare
from tasks.explain.superpixels import Superpixels, cut

Classify = Callable[[np.ndarray], np.ndarray]  # (N, S, S, 3) uint8 to (N, K) probabilities

_GREY = 128
_STILL = 1e-6  # a probability that moves less than this has nothing to explain


class LimeSettings(Superpixels):
    """What an explanation depends on beside the model and the picture.

    Attributes
    ----------
    samples
        Perturbed copies, the picture itself included.
    hide
        Fill of hidden superpixels: each one's own mean colour, the picture's mean colour, or mid
        grey.
    kernel_width
        Of LIME's exponential kernel on the cosine distance between what is shown and everything.
    batch_size
        Copies that the model is shown at once.
    top_features
        Superpixels that a simplified map shows, at most: those with the largest positive weights.
    seed
        With the picture's identity, the seed of everything random.
    """

    samples: Annotated[int, Field(ge=20)]
    hide: Literal["superpixel_mean", "picture_mean", "grey"]
    kernel_width: Annotated[float, Field(gt=0)]
    batch_size: Annotated[int, Field(ge=1)]
    top_features: Annotated[int, Field(ge=1)]
    seed: int


@dataclass(frozen=True)
class Explanation:
    """One picture's weights.

    Attributes
    ----------
    emotion
        The answer that is explained.
    probability
        The model's probability of it for the whole picture.
    picture
        `(S, S, 3)` uint8 RGB, the crop at the model's input size.
    segments
        `(S, S)` superpixels 0 … n - 1.
    weights
        `(n,)` float64: by how much the probability rises when the superpixel is shown.
    r2
        The regression's weighted R² on the copies that it was fitted to, from 0 to 1, as LIME
        reports it; 0 where the probability did not move.
    r2_adjusted
        The same, corrected for the number of superpixels; may be below 0.
    """

    emotion: str
    probability: float
    picture: np.ndarray
    segments: np.ndarray
    weights: np.ndarray
    r2: float
    r2_adjusted: float


def explain_picture(
    recogniser: Recogniser,
    crop: np.ndarray,
    settings: LimeSettings,
    emotion: str | None = None,
    key: str | None = None,
) -> Explanation:
    """Explain what a recogniser answers for a face crop.

    Parameters
    ----------
    recogniser
        The model. One that takes grey is shown the perturbed colour copies turned grey.
    crop
        `(H, W, 3)` uint8 RGB.
    settings
        How (params of the stage).
    emotion
        The answer to explain; None: the most probable one.
    key
        The picture's identity, which goes into its seed; None: the digest of its pixels.
    """
    spec = recogniser.spec
    picture = prepare(crop[None], spec.model_copy(update={"colour": "rgb"}))[0]

    def classify(pictures: np.ndarray) -> np.ndarray:
        return recogniser.predict_prepared(recogniser.prepare(pictures))

    seed = _seed(settings.seed, hashlib.sha256(crop.tobytes()).hexdigest() if key is None else key)
    if emotion is None:
        emotion = spec.labels[int(classify(picture[None])[0].argmax())]
    segments = cut(crop, spec.input_size_px, settings, seed)
    return explain(classify, spec.labels, picture, segments, emotion, settings, seed)


def explain(
    classify: Classify,
    labels: Sequence[str],
    picture: np.ndarray,
    segments: np.ndarray,
    emotion: str,
    settings: LimeSettings,
    seed: int,
) -> Explanation:
    """Weigh the superpixels of one picture.

    Parameters
    ----------
    classify
        From `(N, S, S, 3)` uint8 pictures to `(N, K)` probabilities.
    labels
        The K emotions.
    picture
        `(S, S, 3)` uint8.
    segments
        `(S, S)` superpixels 0 … n - 1.
    emotion
        The one of `labels` to explain.
    settings
        Samples, fill, kernel and batches.
    seed
        Which superpixels are hidden in which copy follows from it.
    """
    index = list(labels).index(emotion)
    explainer = _Explainer(
        kernel_width=settings.kernel_width,
        feature_selection="none",
        random_state=seed,
    )
    with threadpool_limits(1):  # sums split among threads would end in other last bits
        result = explainer.explain_instance(
            picture,
            classify,
            labels=(index,),
            top_labels=None,
            hide_color=_fill(picture, settings.hide),
            num_samples=settings.samples,
            batch_size=settings.batch_size,
            segmentation_fn=lambda _: segments,
            random_seed=0,  # for a segmentation of the package's own
        )
    weights = np.zeros(int(segments.max()) + 1)
    for superpixel, weight in result.local_exp[index]:
        weights[superpixel] = weight
    r2 = float(np.clip(result.score, 0.0, 1.0))
    if np.ptp(explainer.answers[:, index]) < _STILL:
        weights[:], r2 = 0.0, 0.0
    probability = float(explainer.answers[0, index])
    adjusted = _adjusted(r2, settings.samples, len(weights))
    return Explanation(emotion, probability, picture, segments, weights, r2, adjusted)


class _Explainer(LimeImageExplainer):
    """The package's explainer with its copies made a batch at a time, not a superpixel at a time.

    Same random numbers, same copies, same answers; without its bar on standard error. `answers`
    keeps the model's probabilities, `(samples, K)`, of the last picture.
    """

    answers: np.ndarray

    def data_labels(
        self,
        image: np.ndarray,
        fudged_image: np.ndarray,
        segments: np.ndarray,
        classifier_fn: Classify,
        num_samples: int,
        batch_size: int = 10,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return what each copy shows, `(samples, n)` of 0 and 1, and the model's answers."""
        n_superpixels = int(segments.max()) + 1
        shown = self.random_state.randint(0, 2, num_samples * n_superpixels)
        shown = shown.reshape(num_samples, n_superpixels)
        shown[0] = 1
        answers = []
        for start in range(0, num_samples, batch_size):
            visible = shown[start : start + batch_size, segments] == 1  # (B, S, S)
            answers.append(classifier_fn(np.where(visible[..., None], image, fudged_image)))
        self.answers = np.concatenate(answers)
        return shown, self.answers


def _fill(picture: np.ndarray, hide: str) -> tuple[int, ...] | None:
    if hide == "superpixel_mean":
        return None  # the package's own default
    if hide == "grey":
        return (_GREY,) * 3
    return tuple(int(value) for value in np.rint(picture.mean(axis=(0, 1))))


def _adjusted(r2: float, samples: int, n_superpixels: int) -> float:
    """R² corrected for fitted weights; NaN where there are as many superpixels as samples."""
    spare = samples - n_superpixels - 1
    return 1 - (1 - r2) * (samples - 1) / spare if spare > 0 else float("nan")


def _seed(seed: int, key: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{key}".encode()).digest()[:4], "big") >> 1
