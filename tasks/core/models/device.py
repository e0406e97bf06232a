"""Which device and which precision a model runs in, and how to make it repeat itself."""

import os
from typing import Literal

import torch
from torch import nn

from tasks.core.errors import ModelError

Precision = Literal["auto", "float32", "bfloat16"]

_MANY_WEIGHTS = 5_000_000  # between `compact` (a million), which may lose, and resnet18 (11)


def choose_device(name: str) -> torch.device:
    """Choose where to compute.

    Parameters
    ----------
    name
        "auto" (CUDA where there is one, else the CPU) or a device of torch such as "cpu", "cuda"
        or "cuda:1".

    Raises
    ------
    ModelError
        Where torch knows no such device or this machine has none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device).add_(1)
    except Exception as error:  # noqa: BLE001 - torch raises many types for a missing device
        reason = (" ".join(str(error).split()) or type(error).__name__)[:120]
        raise ModelError(
            f"device '{name}' cannot be used here ({reason}); use auto or cpu"
        ) from None
    return device


def on_device(module: nn.Module, device: torch.device) -> nn.Module:
    """Move a network to a device, in channels-last layout.

    Raises
    ------
    ModelError
        Where the device's memory does not hold the network alone.
    """
    try:
        moved: nn.Module = module.to(device).to(memory_format=torch.channels_last)
    except torch.OutOfMemoryError:
        raise ModelError(
            f"{device}: its memory is too small for the network alone; choose a smaller backbone, "
            "or a device with more memory free"
        ) from None
    return moved


def uses_bfloat16(precision: Precision, device: torch.device, module: nn.Module) -> bool:
    """Say whether to compute in bf16; weights, losses and steps are float32 all the same.

    Parameters
    ----------
    precision
        "auto": on CUDA; on a CPU where it has instructions for bf16 and the network is one that
        they speed up. The network's kind decides and not a trial, so that the same work gives the
        same bits.
    device
        Where it runs.
    module
        The network.
    """
    if precision != "auto":
        return precision == "bfloat16"
    if device.type != "cpu":
        return device.type == "cuda"
    return _has_bfloat16_instructions() and _gains_by_bfloat16(module)


def _has_bfloat16_instructions() -> bool:
    able = torch.cpu.get_capabilities()  # without them oneDNN computes bf16 by way of float32
    return any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def _gains_by_bfloat16(module: nn.Module) -> bool:
    """Tell whether most work is in many dense convolutions; depthwise ones wait for memory anyway.

    Linear layers are used once a picture: in alexnet they are most weights and little work.
    """
    convolutions = [part for part in module.modules() if isinstance(part, nn.Conv2d)]
    grouped = any(part.groups > 1 for part in convolutions)
    return not grouped and sum(part.weight.numel() for part in convolutions) >= _MANY_WEIGHTS


def make_repeatable(device: torch.device) -> None:
    """Make torch give the same bits for the same work on the same machine.

    On the CPU every operation that is used here has a deterministic form, and one without raises.
    CUDA lacks a few (such as the backward pass of max pooling); those warn and differ in the last
    bits. The number of threads must be the same too, since sums are split among them.
    """
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # asked for by cuBLAS
        torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
    # Filling memory that is about to be written costs time and guards against faults of others.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
