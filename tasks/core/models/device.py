"""Which device and which precision a model runs in, and how to make it repeat itself."""

import os
from typing import Literal

import torch

from tasks.core.errors import ModelError

Precision = Literal["auto", "float32", "bfloat16"]


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


def uses_bfloat16(precision: Precision, device: torch.device) -> bool:
    """Say whether to compute in bf16: "auto" does so on CUDA alone.

    On a CPU bf16 is faster for large networks and slower for small ones, so it is opt-in there.
    """
    return precision == "bfloat16" or (precision == "auto" and device.type == "cuda")


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
