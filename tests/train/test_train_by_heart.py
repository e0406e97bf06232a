"""Every backbone, every loss and every optimizer learns a handful of pictures by heart.

Eight pictures with labels that mean nothing: there is no rule to find, only pictures to know. One
epoch shows each many times, through the loop as it is, without augmentation.
"""

import numpy as np
import pytest
import torch
from torch import nn

from tasks.core.models.backbones import ARCHITECTURES, TIMM_NAMES, build_module
from tasks.core.models.spec import ModelSpec
from tasks.core.training import fit
from tasks.core.training.config import LossName, OptimizerName
from tasks.core.training.strategy import Strategy

LABELS = ("anger", "happiness", "neutral", "sadness")
TARGETS = np.array([0, 1, 2, 3, 0, 1, 2, 3])
STILL = {
    "flip": 0,
    "rotation_deg": 0,
    "shear_deg": 0,
    "scale": [1, 1],
    "shift": 0,
    "brightness": 0,
    "contrast": 0,
    "saturation": 0,
    "gray": 0,
}
SMALL = "compact"
# Rates that suit each: without batch normalization, or deep, a network needs a smaller one.
RATES = {"adagrad": 0.01, "sgd": 0.02, "rmsprop": 0.0003, "ranger": 0.01}
BACKBONES = {  # pixels, steps and learning rate
    "alexnet": (64, 20, 0.0001),
    "compact": (32, 25, 0.001),
    "densenet121": (32, 16, 0.001),
    "efficientnet_b0": (96, 25, 0.0001),
    "lenet5": (32, 40, 0.002),
    "mini_xception": (32, 25, 0.001),
    "mobilenet_v1": (32, 30, 0.001),
    "mobilenet_v3": (64, 25, 0.0003),
    "mobilenet_v3_small": (32, 30, 0.001),
    "resnet18": (32, 20, 0.0005),
    "resnet50": (32, 20, 0.0003),
    "resnet152": (32, 12, 0.0005),
    "senet": (32, 16, 0.0005),
    "timm/mobilenetv3_small_050": (64, 30, 0.0005),
    "vgg16": (32, 8, 0.0001),
}
ALIAS = "mobilenet_v3_large"  # of mobilenet_v3
SLOW = {*TIMM_NAMES, "alexnet", "resnet18", "resnet50"}
# The same code several times as deep; a step of each is trained among the slow tests.
LONG = {"resnet152", "resnet50", "densenet121"}


def marks_of(name):
    if name in LONG:
        return pytest.mark.long
    return pytest.mark.slow if name in SLOW else ()


class InTurn(Strategy):
    """Every step shows all eight."""

    def order(self, images, rng):
        return np.arange(len(images))


@pytest.fixture
def learns(train_params, images_of, tmp_path, monkeypatch):
    """Train on the eight pictures and return the history of that one epoch."""
    monkeypatch.setattr(fit, "save_progress", lambda *_: None)  # gigabytes for the largest

    def run(backbone=SMALL, size_px=32, steps=25, rate=0.001, **changed):
        torch.manual_seed(1)
        module = build_module(backbone, len(LABELS), 3, size_px)
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.momentum = 0.3  # running statistics of these few steps, not of hundreds
            if isinstance(part, nn.Dropout):
                part.p = 0.0  # what is learnt is all there
        rng = np.random.default_rng(0)
        coarse = rng.integers(0, 256, (8, 4, 4, 3), dtype=np.uint8)
        pixels = coarse.repeat(size_px // 4, axis=1).repeat(size_px // 4, axis=2)
        small = {"epochs": 1, "batch_size": 8, "learning_rate": rate, "checkpoint": "last"}
        recipe = train_params(**small, augmentation=STILL, **changed)
        shown = images_of(np.tile(pixels, (steps, 1, 1, 1)), np.tile(TARGETS, steps))
        once = images_of(pixels, TARGETS)
        spec = ModelSpec(
            architecture=backbone,
            labels=LABELS,
            input_size_px=size_px,
            color="rgb",
            mean=(0.5,) * 3,
            std=(0.25,) * 3,
            version="",
            source="",
        )
        fitted = fit.fit(module, spec, shown, once, recipe, InTurn(), tmp_path, True)
        return fitted.history, fitted.found

    return run


def by_heart(outcome):
    history, found = outcome
    return np.array_equal(found, TARGETS) and history["valid_loss"][1] < history["valid_loss"][0]


@pytest.mark.parametrize("name", [pytest.param(name, marks=marks_of(name)) for name in BACKBONES])
def test_every_backbone(learns, name):
    assert by_heart(learns(name, *BACKBONES[name]))


def test_no_backbone_is_left_out():
    assert {*ARCHITECTURES, *TIMM_NAMES} - {*BACKBONES} == {ALIAS}
    assert TIMM_NAMES[ALIAS] == TIMM_NAMES["mobilenet_v3"]


@pytest.mark.parametrize("name", LossName.__args__)
def test_every_loss(learns, name):
    assert by_heart(learns(loss={"name": name, "smoothing": 0.1, "beta": 0.9}))


@pytest.mark.parametrize("name", OptimizerName.__args__)
def test_every_optimizer(learns, name):
    rate = RATES.get(name, 0.001)
    assert by_heart(learns(rate=rate, optimizer={"name": name, "momentum": 0.9}))
