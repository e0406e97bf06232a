"""Every network by name learns, has one output a label, and says which input is too small."""

import pytest
import timm
import torch
from torch.nn import functional

from tasks.core.errors import ModelError
from tasks.core.models.backbones import (
    ARCHITECTURES,
    TIMM_NAMES,
    build_module,
    head_parameter_names,
)
from tasks.train.pretrained.transfer import check_input_size

SIDE_PX = {"lenet5": 32}
LARGE = (
    "alexnet",
    "densenet121",
    "efficientnet_b0",
    "resnet50",
    "resnet152",
    "senet",
    "vgg16",
)  # slow to train a step of
NAMES = sorted([*ARCHITECTURES, *TIMM_NAMES])


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("architecture", sorted({*NAMES} - {*LARGE, "mobilenet_v3_large"}))
def test_every_network_trains_a_step(architecture, channels):
    assert train_a_step(architecture, channels) == []


@pytest.mark.slow
@pytest.mark.parametrize("architecture", LARGE)
def test_large_networks_train_a_step(architecture):
    # The last factor of a residual block of timm's is 0 at first: the first step opens the block.
    # Then a few weights before a rectifier that never fires stay.
    assert len(train_a_step(architecture, channels=1, steps=2)) <= 2


def train_a_step(architecture, channels, steps=1):
    # Channels last, as in training: oneDNN crashed on one of these layouts (issue 6035).
    torch.manual_seed(0)
    module = build_module(architecture, 5, channels).to(memory_format=torch.channels_last)
    side = SIDE_PX.get(architecture, 64)
    x = torch.rand(4, channels, side, side).contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    before = {name: weight.detach().clone() for name, weight in module.named_parameters()}
    for _ in range(steps):
        optimizer.zero_grad()
        logits = module.train()(x)
        functional.cross_entropy(logits, torch.tensor([0, 1, 2, 3])).backward()
        optimizer.step()

    assert logits.shape == (4, 5) and torch.isfinite(logits).all()
    unmoved = [name for name, w in module.named_parameters() if torch.equal(w, before[name])]
    assert not set(unmoved) & set(head_parameter_names(module))
    return unmoved


@pytest.mark.parametrize("architecture", sorted({*LARGE, *TIMM_NAMES} - {"mobilenet_v3_large"}))
def test_large_networks_answer_the_labels_and_reach_every_weight(architecture):
    with torch.device("meta"):  # shapes and gradients without a number
        module = build_module(architecture, 5, 1)
        logits = module(torch.empty(2, 1, 64, 64))
    assert logits.shape == (2, 5)
    logits.sum().backward()
    assert [name for name, weight in module.named_parameters() if weight.grad is None] == []
    shapes = [module.get_parameter(name).shape[0] for name in head_parameter_names(module)]
    assert shapes == [5, 5]


@pytest.mark.parametrize("name", sorted(TIMM_NAMES))
def test_a_name_of_ours_is_that_network_of_timm_with_published_weights(name):
    theirs, _, tag = TIMM_NAMES[name].removeprefix("timm/").partition(".")
    config = timm.get_pretrained_cfg(f"{theirs}.{tag}", allow_unregistered=False)
    assert config.tag == tag and config.hf_hub_id
    with torch.device("meta"):
        ours, published = build_module(name, 1000, 3), timm.create_model(theirs)
    shapes = {key: tensor.shape for key, tensor in ours.state_dict().items()}
    assert shapes == {key: tensor.shape for key, tensor in published.state_dict().items()}


@pytest.mark.parametrize("name", NAMES)
def test_an_input_of_32_px_is_enough_for_all_but_alexnet(name):
    with torch.device("meta"):
        module = build_module(name, 3, 1)
    if name == "alexnet":
        with pytest.raises(ModelError, match=r"32 px is too small.*smallest is 63 px") as e:
            check_input_size(module, name, 1, 32)
        assert "\n" not in str(e.value)
        check_input_size(module, name, 1, 63)
    else:
        check_input_size(module, name, 1, 32)
    assert module.training  # as it was


@pytest.mark.parametrize(
    "architecture", ["compact", "lenet5", "mobilenet_v1", "mobilenet_v3_small", "resnet18"]
)
@pytest.mark.parametrize("side", [32, 50, 97])
def test_networks_take_any_size(architecture, side):
    module = build_module(architecture, 3, 3).eval()
    with torch.inference_mode():
        assert module(torch.rand(2, 3, side, side)).shape == (2, 3)


def test_unknown_network_lists_the_known_ones():
    with pytest.raises(ModelError, match=r"'vgg'.*compact.*mini_xception.*vgg16"):
        build_module("vgg", 7, 3)
