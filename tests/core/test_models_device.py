import pytest
import torch

from tasks.core.errors import ModelError
from tasks.core.models import device as device_module
from tasks.core.models.backbones import build_module
from tasks.core.models.device import on_device, uses_bfloat16

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
GAINS = {
    "resnet18": True,
    "resnet50": True,
    "vgg16": True,
    "compact": False,  # small: what the drawn cohort's figures come from stays in float32
    "lenet5": False,
    "alexnet": False,  # large by its linear layers
    "mobilenet_v1": False,  # depthwise
    "mobilenet_v3_small": False,
    "efficientnet_b0": False,
}


@pytest.fixture
def able(monkeypatch):
    """Make the CPU one with or without instructions for bf16."""

    def make(name):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, name: True})

    return make


@pytest.mark.parametrize("backbone", GAINS)
def test_auto_on_a_cpu_goes_by_the_networks_kind(backbone, able):
    with torch.device("meta"):
        module = build_module(backbone, 7, 3)
    for instructions in ("avx512_bf16", "amx_bf16"):
        able(instructions)
        assert uses_bfloat16("auto", CPU, module) == GAINS[backbone]
    able("avx512_vnni")
    assert not uses_bfloat16("auto", CPU, module)
    assert uses_bfloat16("auto", CUDA, module)
    assert uses_bfloat16("bfloat16", CPU, module)
    assert not uses_bfloat16("float32", CUDA, module)


def test_repeatable_work_does_not_fill_memory_that_is_written_anyway():
    device_module.make_deterministic(CPU)
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory


def test_a_device_too_small_for_the_network_is_one_line(monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    module = build_module("lenet5", 7, 3, 32)
    monkeypatch.setattr(module, "to", full)
    with pytest.raises(ModelError, match="cpu: its memory is too small for the network alone"):
        on_device(module, CPU)
