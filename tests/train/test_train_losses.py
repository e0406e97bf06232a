"""Each loss against torch's own formula or numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from tasks.core.training.config import Loss, LossName
from tasks.core.training.losses import class_weights, label_loss

NAMES = LossName.__args__
COUNTS = np.array([4, 3, 1, 0])
LOGITS = torch.tensor([[2.0, 0.5, -1.0, 0.0], [0.1, 0.2, 0.3, -0.4], [-3.0, 0.0, 1.5, 2.0]])
TARGETS = torch.tensor([0, 2, 1])


def named(name, **changed):
    return Loss.model_validate({"name": name, "smoothing": 0.1, "beta": 0.9, **changed})


def losses(name, **changed):
    return label_loss(named(name, **changed), COUNTS)(LOGITS, TARGETS)


def torchs_own(name):
    one_hot = functional.one_hot(TARGETS, 4).float()
    weights = torch.from_numpy(class_weights(COUNTS, 0.9))
    parts = [slice(row, row + 1) for row in range(3)]  # torch's own mean over one picture
    return {
        "cross_entropy": [functional.cross_entropy(LOGITS[p], TARGETS[p]) for p in parts],
        "label_smoothed": [
            functional.cross_entropy(LOGITS[p], TARGETS[p], label_smoothing=0.1) for p in parts
        ],
        "class_balanced": [
            weights[TARGETS[p]][0] * functional.cross_entropy(LOGITS[p], TARGETS[p]) for p in parts
        ],
        "mse": [functional.mse_loss(LOGITS[p].softmax(1), one_hot[p]) for p in parts],
        "multilabel_soft_margin": [
            functional.multilabel_soft_margin_loss(LOGITS[p], one_hot[p]) for p in parts
        ],
        "multi_margin": [functional.multi_margin_loss(LOGITS[p], TARGETS[p]) for p in parts],
    }[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_a_image_as_torch_has_it(name):
    found = losses(name)
    assert found.shape == (3,)
    assert found.dtype == torch.float32
    assert torch.allclose(found, torch.stack(torchs_own(name)), atol=1e-6)


def test_numbers_by_hand():
    """Two labels, logits 0 and log 3: the probabilities are a quarter and three quarters."""
    logits, first = torch.tensor([[0.0, math.log(3)]]), torch.tensor([0])

    def one(name, **changed):
        return float(label_loss(named(name, **changed), np.array([1, 3]))(logits, first))

    assert one("cross_entropy") == pytest.approx(math.log(4))
    assert one("mse") == pytest.approx(0.75**2)  # (.75² + .75²) / 2
    smoothed = 0.9 * math.log(4) + 0.1 * math.log(4 / 3)  # .2 spread over two labels
    assert one("label_smoothed", smoothing=0.2) == pytest.approx(smoothed)
    assert one("multi_margin") == pytest.approx((1 + math.log(3)) / 2)
    assert one("multilabel_soft_margin") == pytest.approx((math.log(2) + math.log(4)) / 2)
    # beta 1/2: effective numbers 1 and 1 + 1/2 + 1/4; weights 7 : 4, scaled to (7 + 3 · 4) x = 4
    assert one("class_balanced", beta=0.5) == pytest.approx(7 * 4 / 19 * math.log(4))


@pytest.mark.parametrize("name", NAMES)
def test_the_right_answer_costs_less_and_the_gradient_leads_there(name):
    loss = label_loss(named(name), COUNTS)
    sure = torch.full((1, 4), -4.0).index_fill(1, torch.tensor([1]), 4.0)
    one = torch.tensor([1])
    assert 0 <= float(loss(sure, one)) < float(loss(torch.zeros(1, 4), one))
    assert float(loss(torch.zeros(1, 4), one)) < float(loss(-sure, one))
    logits = torch.zeros(1, 4, requires_grad=True)
    loss(logits, one).sum().backward()
    assert logits.grad[0].argmin() == 1
    assert logits.grad[0, 1] < 0


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_that_validated_first_trains_after(name):
    loss = label_loss(named(name), COUNTS)
    with torch.inference_mode():
        loss(LOGITS, TARGETS)
    logits = LOGITS.clone().requires_grad_()
    loss(logits, TARGETS).sum().backward()
    assert logits.grad.abs().sum() > 0


def test_class_weights_are_as_published_and_one_on_average():
    counts = np.array([500, 50, 5, 0])
    weights = class_weights(counts, 0.999)
    effective = (1 - 0.999 ** counts[:3]) / (1 - 0.999)
    assert np.allclose(weights[:3] * effective, weights[0] * effective[0])  # inverse to each other
    assert (weights * counts).sum() / counts.sum() == pytest.approx(1)
    assert weights[3] == 1
    assert weights.dtype == np.float32
    assert np.allclose(class_weights(counts, 0.0), 1)
    nearly_inverse = class_weights(counts[:3], 1 - 1e-9)
    assert np.allclose(nearly_inverse * counts[:3], 555 / 3, rtol=1e-3)


@pytest.mark.parametrize("change", [{"name": "hinge"}, {"smoothing": 1}, {"beta": 1}, {"beta": -1}])
def test_impossible_values_are_refused(change):
    with pytest.raises(ValidationError):
        named(**{"name": "cross_entropy", **change})
