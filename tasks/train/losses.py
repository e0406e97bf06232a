"""What a picture's answer is measured against its label by: one loss a picture, by name.

All take the network's raw scores (logits). `mse` compares the softmax probabilities with 1 for the
label and 0 for the others: the mean of the squares over the labels, which is G. W. Brier's score
(1950, Monthly Weather Review 78(1), 1) divided by the number of labels. `multilabel_soft_margin`
takes each label for a question of its own, with yes for the picture's label and no for the others.
`multi_margin` wants the label's logit above every other one by 1. `label_smoothed` spreads a share
of the target over all labels: C. Szegedy et al. (2016), arXiv 1512.00567. `class_balanced` weighs
the cross-entropy by how many pictures a label has: Y. Cui et al. (2019), arXiv 1901.05555.

Losses are not averaged here, so that pictures can be weighed, and so that a batch in several parts
or on several devices counts as one.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch.nn import functional

from tasks.train.recipe import Loss

# From logits (B, K) float32 and targets (B,) int64 to each picture's loss (B,) float32.
LabelLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def label_loss(loss: Loss, counts: np.ndarray) -> LabelLoss:
    """Make the loss that params name.

    Parameters
    ----------
    loss
        Its name and what it needs.
    counts
        `(K,)` int64: training pictures of each label; some may have none.

    Returns
    -------
    callable
        From logits `(B, K)` float32 and targets `(B,)` int64 on one device to losses `(B,)`
        float32, each at least 0, lower is better.
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
        return _weighted(torch.from_numpy(class_weights(counts, loss.beta)))
    return partial(functional.cross_entropy, reduction="none")


def class_weights(counts: np.ndarray, beta: float) -> np.ndarray:
    """Weigh labels by the inverse of their effective number of pictures (Cui et al., equation 2).

    Parameters
    ----------
    counts
        `(K,)` int64: pictures of each label, at least one of them above 0.
    beta
        From 0 (every weight is 1) to below 1 (towards the inverse of the counts).

    Returns
    -------
    np.ndarray
        `(K,)` float32, scaled so that the mean over the pictures is 1 and the learning rate keeps
        its meaning. A label without pictures weighs 1: only validation pictures can have it.
    """
    occur = counts > 0
    effective = (1 - beta ** counts[occur].astype(np.float64)) / (1 - beta)
    weights = np.ones(len(counts))
    weights[occur] = 1 / effective
    weights[occur] *= counts.sum() / (weights * counts).sum()
    return weights.astype(np.float32)


def _weighted(weights: torch.Tensor) -> LabelLoss:
    placed: dict[torch.device, torch.Tensor] = {}  # moving them for every batch would wait for it

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if logits.device not in placed:
            with torch.inference_mode(False):  # validation may come first, gradients follow
                placed[logits.device] = weights.to(logits.device)
        own = placed[logits.device]
        return functional.cross_entropy(logits, targets, weight=own, reduction="none")

    return loss


def _mse(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (logits.softmax(dim=1) - _one_hot(logits, targets)).square().mean(dim=1)


def _multilabel_soft_margin(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.multilabel_soft_margin_loss(
        logits, _one_hot(logits, targets), reduction="none"
    )


def _one_hot(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.one_hot(targets, logits.shape[1]).to(logits.dtype)
