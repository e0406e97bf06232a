import json
from itertools import chain

import numpy as np
import pytest
import torch
from torch import nn

from tasks.core.models.backbones import build_module
from tasks.core.models.spec import ModelSpec
from tasks.core.training import linear_probe
from tasks.core.training.fit import fit
from tasks.core.training.linear_probe import HeadOnly, fit_head
from tasks.finetune import stage as finetune_stage
from tasks.train import stage

LABELS = ("anger", "happiness", "neutral")
SIDE_PX = 32


def spec_of(backbone):
    return ModelSpec(
        architecture=backbone,
        labels=LABELS,
        input_size_px=SIDE_PX,
        color="rgb",
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        version="",
        source="",
    )


@pytest.fixture
def network():
    """A network in which drop-out and batch normalization would show themselves."""

    def make(backbone):
        torch.manual_seed(0)
        module = build_module(backbone, len(LABELS), 3)
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                nn.init.uniform_(part.running_mean, -0.2, 0.2)
                nn.init.uniform_(part.running_var, 0.5, 2)
        return module

    return make


@pytest.fixture
def some(images_of):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (36, SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
    targets = np.arange(36) % 3
    return images_of(pixels[:24], targets[:24]), images_of(pixels[24:], targets[24:])


@pytest.fixture
def counted(monkeypatch):
    """Count the pictures that pass through a backbone for their features."""
    sizes = []
    real = linear_probe.Backbone.__call__
    monkeypatch.setattr(
        linear_probe.Backbone, "__call__", lambda self, x: (sizes.append(len(x)), real(self, x))[1]
    )
    return sizes


@pytest.mark.parametrize("backbone", ["compact", "mobilenet_v1", "mini_xception"])
def test_the_head_on_features_is_the_head_through_the_frozen_backbone(
    backbone, network, some, finetune_params, tmp_path, counted
):
    """mini_xception ends in a convolution whose maps are averaged."""
    recipe = finetune_params(epochs=4, learning_rate=0.01)
    still = recipe.model_copy(update={"augmentation": linear_probe._NO_AUGMENTATION})
    spec = spec_of(backbone)
    fast = fit_head(network(backbone), spec, *some, recipe, HeadOnly(), tmp_path / "a", False)
    slow = fit(network(backbone), spec, *some, still, HeadOnly(), tmp_path / "b", False)
    assert sum(counted) == 4 + 36  # once each, and a few to see that it can be done
    pairs = zip(fast.module.state_dict().items(), slow.module.state_dict().values(), strict=True)
    before = network(backbone).state_dict()
    changed = set()
    for (name, one), other in pairs:
        assert torch.allclose(one, other, atol=2e-5, rtol=1e-4), name
        changed |= {name.rpartition(".")[2]} if not torch.equal(one, before[name]) else set()
    assert changed == {"weight", "bias"}
    columns = ["train_loss", "valid_loss", "valid_recall_score"]
    assert np.allclose(fast.history[columns], slow.history[columns], atol=1e-4)
    assert fast.best_epoch == slow.best_epoch
    assert np.array_equal(fast.found, slow.found)
    assert not list(chain((tmp_path / "a").glob("*.npy")))  # the features are gone


class TwoHeads(nn.Module):
    """Ends in what no single layer gives."""

    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.body(x).mean(dim=(2, 3))) * 2  # after the last layer


def test_a_network_that_does_not_end_in_its_last_layer_goes_through_its_backbone(
    some, finetune_params, tmp_path
):
    torch.manual_seed(0)
    module = TwoHeads()
    body = module.body.weight.detach().clone()
    head = module.head.weight.detach().clone()
    recipe = finetune_params(epochs=2, learning_rate=0.01)
    fitted = fit_head(module, spec_of("two"), *some, recipe, HeadOnly(), tmp_path, False)
    assert torch.equal(fitted.module.body.weight, body)
    assert not torch.equal(fitted.module.head.weight, head)


def test_stage_head_computes_features_once_and_resumes(
    cohort, train_params, finetune_params, counted, monkeypatch
):
    stage.run(train_params(epochs=1, backbone="compact"), cohort)
    result = finetune_stage.run(finetune_params(epochs=6), cohort, "head")
    assert sum(counted) == 4 + 18 + 6  # the children's training and validation pictures
    assert result.metrics["valid_recall_score_at_best"] > 0
    spec = json.loads((cohort.model("head") / "model.json").read_text())
    assert spec["architecture"] == "compact"
    assert not list(cohort.at("work").glob("finetune/*"))
