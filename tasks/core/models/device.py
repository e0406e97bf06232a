"""Selection of device and precision, and reproducible computation."""

import os
from typing import Literal

import torch
from torch import nn

from tasks.core.errors import ModelError

Precision = Literal["auto", "float32", "bfloat16"]

_MANY_WEIGHTS = 5_000_000  # between `compact` (1 million), which may get slower, and resnet18 (11)


def choose_device(name: str) -> torch.device:
    """Return the device to compute on.

    `name` is "auto" (CUDA if available, else the CPU) or a torch device such as "cpu" or "cuda:1".
    Raises ModelError if torch does not know the device or this machine lacks it.
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

    Raises ModelError if the device's memory does not hold the network.
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
    """Return whether to compute in bf16; weights, losses and steps are always float32.

    "auto" means yes on CUDA, and on a CPU if it has bf16 instructions and they speed up this kind
    of network. A rule decides rather than a timing, so that results are reproducible.
    """
    if precision != "auto":
        return precision == "bfloat16"
    if device.type != "cpu":
        return device.type == "cuda"
    return _has_bfloat16_instructions() and _gains_by_bfloat16(module)


def _has_bfloat16_instructions() -> bool:
    capabilities = (
        torch.cpu.get_capabilities()
    )  # without them oneDNN computes bf16 by way of float32
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def _gains_by_bfloat16(module: nn.Module) -> bool:
    """Return whether most work is in many dense convolutions; depthwise ones are memory-bound.

    Linear layers run once per image: in alexnet they hold most weights but do little work.
    """
    convolutions = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    grouped = any(layer.groups > 1 for layer in convolutions)
    return not grouped and sum(layer.weight.numel() for layer in convolutions) >= _MANY_WEIGHTS


def make_deterministic(device: torch.device) -> None:
    """Make torch deterministic for the same work on the same machine.

    On the CPU every operation used here has a deterministic form; others would raise. CUDA lacks a
    few (such as the backward pass of max pooling), which warn and differ in the last bits. The
    number of threads must be the same too, since sums are split among them.
    """
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # asked for by cuBLAS
        torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
    # Filling uninitialized memory costs time and only guards against bugs elsewhere.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
