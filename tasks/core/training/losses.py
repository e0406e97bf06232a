"""Per-sample classification losses, selected by name.

All take logits. `mse` compares the softmax probabilities with the one-hot label: the mean of
squares over the labels, which is G. W. Brier's score (1950, Monthly Weather Review 78(1), 1)
divided by the number of labels. `multilabel_soft_margin` treats each label as a separate binary
problem. `multi_margin` requires the label's logit to exceed every other one by 1. `label_smoothed`
spreads a share of the target over all labels: C. Szegedy et al. (2016), arXiv 1512.00567.
`class_balanced` weights the cross-entropy by the number of images per label: Y. Cui et al. (2019),
arXiv 1901.05555.

Losses are not averaged here, so that samples can be weighted and a batch can be split over steps or
devices.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch.nn import functional

from tasks.core.training.config import Loss

# From logits (B, K) float32 and targets (B,) int64 to each image's loss (B,) float32.
LabelLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def label_loss(loss: Loss, counts: np.ndarray) -> LabelLoss:
    """Return the loss that params name.

    `counts` is `(K,)` int64: training images per label; some may be 0. The loss maps logits `(B,
    K)` float32 and targets `(B,)` int64 on one device to losses `(B,)` float32, each at least 0.
    """
    if loss.name == "mse":
        return _mse
    if loss.name == "multilabel_soft_margin":
        return _multilabel_soft_margin
    if loss.name == "multi_margin":
        return partial(functional.multi_margin_loss, reduction="none")
    if loss.name == "label_smoothed":
        return partial(functional.cross_entropy, label_smoothing=loss.smoothing, reduction="none")
    if loss.name == "class_balanced":
        return _weighted_cross_entropy(torch.from_numpy(class_weights(counts, loss.beta)))
    return partial(functional.cross_entropy, reduction="none")


def class_weights(counts: np.ndarray, beta: float) -> np.ndarray:
    """Weight labels by the inverse effective number of images (Cui et al., equation 2).

    `counts` is `(K,)` int64, not all 0. `beta` is from 0 (all weights 1) to below 1 (towards
    inverse counts). The weights `(K,)` float32 are scaled to a mean of 1 over the images, so that
    the learning rate keeps its meaning. A label without training images has weight 1: only
    validation images can have it.
    """
    present = counts > 0
    effective = (1 - beta ** counts[present].astype(np.float64)) / (1 - beta)
    weights = np.ones(len(counts))
    weights[present] = 1 / effective
    weights[present] *= counts.sum() / (weights * counts).sum()
    return weights.astype(np.float32)


def _weighted_cross_entropy(weights: torch.Tensor) -> LabelLoss:
    on_devices: dict[torch.device, torch.Tensor] = {}  # a copy per batch would synchronize

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if logits.device not in on_devices:
            with torch.inference_mode(False):  # validation may come first, gradients follow
                on_devices[logits.device] = weights.to(logits.device)
        local_weights = on_devices[logits.device]
        return functional.cross_entropy(logits, targets, weight=local_weights, reduction="none")

    return loss


def _mse(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (logits.softmax(dim=1) - _one_hot(logits, targets)).square().mean(dim=1)


def _multilabel_soft_margin(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.multilabel_soft_margin_loss(
        logits, _one_hot(logits, targets), reduction="none"
    )


def _one_hot(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.one_hot(targets, logits.shape[1]).to(logits.dtype)
