"""Each optimizer takes the steps of its paper, at the rate of the step, and goes on as it was."""

import copy

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional

from tasks.core.training.config import OptimizerName
from tasks.core.training.optimizers import learning_rate, make_optimizer
from tasks.core.training.training_state import (
    TrainingState,
    load_progress,
    optimizer_state,
    restore_optimizer_state,
    save_progress,
)

NAMES = OptimizerName.__args__
RATE, DECAY, MOMENTUM = 0.02, 0.1, 0.8
START = np.array([[1.0, -2.0, 0.5], [0.3, 0.7, -0.1]])
SCALE = np.array([[0.5, 1.0, 3.0], [0.1, 2.0, 0.7]])  # of a loss whose gradient is SCALE * weights


@pytest.fixture
def recipe(train_params):
    """A recipe with an optimizer, by name."""

    def make(name, **changed):
        optimizer = {"name": name, "momentum": changed.pop("momentum", MOMENTUM)}
        usual = {"learning_rate": RATE, "weight_decay": DECAY, "optimizer": optimizer}
        return train_params(**{**usual, **changed})

    return make


def followed(optimizer, weight, n_steps):
    """The weights after each step on half of SCALE times the squared weights."""
    found = []
    for _ in range(n_steps):
        optimizer.zero_grad()
        (0.5 * torch.from_numpy(SCALE) * weight**2).sum().backward()
        optimizer.step()
        found.append(weight.detach().numpy().copy())
    return found


def adam(grads, weights, decay, decoupled):
    mean, square = np.zeros_like(weights), np.zeros_like(weights)
    for step in range(1, 14):
        grad = grads(weights) + (0 if decoupled else decay * weights)
        mean, square = 0.9 * mean + 0.1 * grad, 0.999 * square + 0.001 * grad**2
        weights = weights * (1 - RATE * decay) if decoupled else weights
        size = np.sqrt(square / (1 - 0.999**step)) + 1e-8
        weights = weights - RATE * mean / (1 - 0.9**step) / size
        yield weights


def adagrad(grads, weights):
    total = np.zeros_like(weights)
    for _ in range(13):
        grad = grads(weights) + DECAY * weights
        total = total + grad**2
        weights = weights - RATE * grad / (np.sqrt(total) + 1e-10)
        yield weights


def rmsprop(grads, weights):
    square, speed = np.zeros_like(weights), np.zeros_like(weights)
    for _ in range(13):
        grad = grads(weights) + DECAY * weights
        square = 0.99 * square + 0.01 * grad**2
        speed = MOMENTUM * speed + grad / (np.sqrt(square) + 1e-8)
        weights = weights - RATE * speed
        yield weights


def sgd(grads, weights):
    speed = np.zeros_like(weights)
    for _ in range(13):
        speed = MOMENTUM * speed + grads(weights) + DECAY * weights
        weights = weights - RATE * speed
        yield weights


def ranger(grads, weights):
    """Centred gradients, RAdam (arXiv 1908.03265, algorithm 2), Lookahead every sixth step."""
    slow, longest = weights, 2 / (1 - 0.999) - 1
    mean, square = np.zeros_like(weights), np.zeros_like(weights)
    for step in range(1, 14):
        grad = grads(weights)
        grad = grad - grad.mean(axis=1, keepdims=True)
        weights = weights * (1 - RATE * DECAY)
        mean, square = 0.95 * mean + 0.05 * grad, 0.999 * square + 0.001 * grad**2
        length = longest - 2 * step * 0.999**step / (1 - 0.999**step)
        ahead = RATE * mean / (1 - 0.95**step)
        if length >= 5:
            rectified = (length - 4) * (length - 2) * longest
            rectified /= (longest - 4) * (longest - 2) * length
            ahead = ahead * np.sqrt(rectified * (1 - 0.999**step)) / (np.sqrt(square) + 1e-5)
        weights = weights - ahead
        if step % 6 == 0:
            slow = slow + 0.5 * (weights - slow)
            weights = slow
        yield weights


BY_HAND = {
    "adam": lambda *start: adam(*start, DECAY, decoupled=False),
    "adamw": lambda *start: adam(*start, DECAY, decoupled=True),
    "adagrad": adagrad,
    "rmsprop": rmsprop,
    "sgd": sgd,
    "ranger": ranger,
}


@pytest.mark.parametrize("name", NAMES)
def test_the_steps_are_those_of_the_paper(recipe, name):
    weight = nn.Parameter(torch.from_numpy(START.copy()))
    found = followed(make_optimizer(recipe(name), [weight]), weight, 13)
    expected = list(BY_HAND[name](lambda weights: SCALE * weights, START))
    assert np.allclose(found, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_the_rate_of_each_step_can_be_set(recipe, name):
    weight = nn.Parameter(torch.from_numpy(START.copy()))
    optimizer = make_optimizer(recipe(name, weight_decay=0.0), [weight])
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    assert np.array_equal(followed(optimizer, weight, 1)[0], START)
    for group in optimizer.param_groups:
        group["lr"] = RATE
    assert not np.array_equal(followed(optimizer, weight, 1)[0], START)


@pytest.mark.parametrize("name", NAMES)
def test_the_first_steps_go_downhill(recipe, name):
    weight = nn.Parameter(torch.from_numpy(START.copy()))
    optimizer = make_optimizer(recipe(name, weight_decay=0.0), [weight])
    losses = [(SCALE * at**2).sum() for at in [START, *followed(optimizer, weight, 3)]]
    assert losses == sorted(losses, reverse=True)


def network():
    """Convolutions whose weights do not lie in memory as their dimensions are listed."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 5, 3), nn.ReLU()]
    module = nn.Sequential(*layers, nn.Flatten(), nn.Linear(5 * 16, 3))
    module = module.to(memory_format=torch.channels_last)
    assert any(not weight.is_contiguous() for weight in module.parameters())
    return module.train()


def trained(module, optimizer, steps):
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(4, 3, 8, 8, generator=generator)
        for group in optimizer.param_groups:
            group["lr"] = 0.001 * (step + 1)
        optimizer.zero_grad()
        functional.cross_entropy(module(x), torch.tensor([0, 1, 2, 0])).backward()
        optimizer.step()


@pytest.mark.parametrize("name", NAMES)
def test_a_training_that_goes_on_from_its_file_ends_with_the_same_bits(recipe, name, tmp_path):
    module = network()
    optimizer = make_optimizer(recipe(name), module.parameters())
    trained(module, optimizer, range(7))  # one past Ranger's sixth, where its slow weights move
    weights = copy.deepcopy(module.state_dict())
    moments = optimizer_state(optimizer)
    kept = TrainingState(1, [{"epoch": 1}], 1, weights, weights, moments, seconds=1.5, pieces=2)
    save_progress(tmp_path, kept, "this")
    trained(module, optimizer, range(7, 14))

    again = network()
    resumed = make_optimizer(recipe(name), again.parameters())
    progress = load_progress(tmp_path, "this")
    assert (progress.seconds, progress.pieces) == (1.5, 2)
    again.load_state_dict(progress.weights)
    restore_optimizer_state(resumed, progress.moments)
    trained(again, resumed, range(7, 14))
    for key, tensor in module.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[key]), key
    left, right = optimizer_state(optimizer), optimizer_state(resumed)
    assert left.keys() == right.keys()
    assert all(torch.equal(left[key], right[key]) for key in left)
    for weight in again.parameters():
        for tensor in resumed.state[weight].values():
            assert tensor.shape != weight.shape or tensor.stride() == weight.stride()


@pytest.mark.parametrize("name", NAMES)
def test_moments_are_a_copy_and_a_fresh_optimisers_make_a_fresh_one(recipe, name):
    module = network()
    start = copy.deepcopy(module.state_dict())
    optimizer = make_optimizer(recipe(name), module.parameters())
    fresh = optimizer_state(optimizer)
    trained(module, optimizer, range(7))
    first = copy.deepcopy(module.state_dict())
    module.load_state_dict(start)
    restore_optimizer_state(optimizer, fresh)
    trained(module, optimizer, range(7))
    assert all(torch.equal(first[key], tensor) for key, tensor in module.state_dict().items())


def test_the_moments_of_another_training_are_not_taken(recipe, tmp_path):
    module = network()
    state = module.state_dict()
    save_progress(tmp_path, TrainingState(1, [], 0, state, state), "this")
    assert load_progress(tmp_path, "other") is None
    assert load_progress(tmp_path, "this").pieces == 1


def rates(recipe, schedule, n_steps):
    chosen = recipe("adam", schedule=schedule, learning_rate=1.0)
    return [learning_rate(chosen, step, n_steps) for step in range(n_steps)]


def test_schedules(recipe):
    assert rates(recipe, "constant", 5) == [1] * 5
    assert rates(recipe, "linear", 4) == [1, 0.75, 0.5, 0.25]
    assert rates(recipe, "step", 8) == pytest.approx([1] * 4 + [0.1] * 2 + [0.01] * 2)
    cosine = rates(recipe, "cosine", 40)
    assert cosine[:5] == [0.25, 0.5, 0.75, 1, 1]
    assert cosine[22] == pytest.approx(0.5)  # half way down from step 4 to step 40
    assert cosine[4:] == sorted(cosine[4:], reverse=True)
    assert 0 < cosine[-1] < 0.01
    assert rates(recipe, "cosine", 1) == [1]


@pytest.mark.parametrize("change", [{"momentum": 1}, {"schedule": "cyclic"}, {"name": "lion"}])
def test_impossible_values_are_refused(recipe, change):
    with pytest.raises(ValidationError):
        recipe(**{"name": "sgd", **change})
