import pytest
import torch
from torch.nn import functional

from tasks.core.errors import ModelError
from tasks.core.models.backbones import ARCHITECTURES, build_module

NATIVE_PX = {"lenet5": 32, "mini_xception": 64}


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_every_network_trains_a_step(architecture, channels):
    # Channels last, as in training: oneDNN crashed on one of these layouts (issue 6035).
    torch.manual_seed(0)
    module = build_module(architecture, 5, channels).to(memory_format=torch.channels_last)
    side = NATIVE_PX.get(architecture, 64)
    x = torch.rand(4, channels, side, side).contiguous(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(module.parameters(), lr=0.001)
    before = {name: weight.detach().clone() for name, weight in module.named_parameters()}
    logits = module.train()(x)
    functional.cross_entropy(logits, torch.tensor([0, 1, 2, 3])).backward()
    optimiser.step()

    assert logits.shape == (4, 5)
    unmoved = [name for name, w in module.named_parameters() if torch.equal(w, before[name])]
    assert unmoved == []


@pytest.mark.parametrize(
    "architecture", ["compact", "lenet5", "mobilenet_v1", "mobilenet_v3_small", "resnet18"]
)
@pytest.mark.parametrize("side", [32, 50, 97])
def test_networks_take_any_size(architecture, side):
    module = build_module(architecture, 3, 3).eval()
    with torch.inference_mode():
        assert module(torch.rand(2, 3, side, side)).shape == (2, 3)


def test_unknown_network_lists_the_known_ones():
    with pytest.raises(ModelError, match=r"'vgg'.*compact.*mini_xception"):
        build_module("vgg", 7, 3)
