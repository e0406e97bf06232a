"""Batch normalization over the images of all processes.

S. Ioffe, C. Szegedy (2015), arXiv 1502.03167, with the mean and variance of the whole batch across
processes. The networks and their layer names stay unchanged: while `SynchronizedBatchNorm` is
active, it intercepts calls of `torch.nn.functional.batch_norm`. This also covers subclasses of
batch normalization with extra behavior, such as timm's, which replacing the layers
(`torch.nn.SyncBatchNorm.convert_sync_batchnorm`) would break.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import distributed, nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode


def has_batch_norm(module: nn.Module) -> bool:
    """Return whether a network contains batch normalization."""
    return any(isinstance(layer, _BatchNorm) for layer in module.modules())


class SynchronizedBatchNorm(TorchFunctionMode):
    """A context in which batch normalization in training uses all processes' images."""

    def __init__(self) -> None:
        super().__init__()
        self._layers: dict[tuple[object, ...], nn.SyncBatchNorm] = {}

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Intercept batch normalization; pass everything else on."""
        if function is functional.batch_norm:
            return self._batch_norm(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))

    def _batch_norm(
        self,
        input: torch.Tensor,
        running_mean: torch.Tensor | None,
        running_var: torch.Tensor | None,
        weight: torch.Tensor | None = None,
        bias: torch.Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> torch.Tensor:
        running = (running_mean, running_var)
        if not training:
            return functional.batch_norm(input, *running, weight, bias, False, momentum, eps)
        if input.device.type == "cuda":
            return self.by_torch(input, running, (weight, bias), momentum, eps)
        return by_hand(input, running, (weight, bias), momentum, eps)

    def by_torch(
        self,
        x: torch.Tensor,
        running: tuple[torch.Tensor | None, torch.Tensor | None],
        affine: tuple[torch.Tensor | None, torch.Tensor | None],
        momentum: float,
        eps: float,
    ) -> torch.Tensor:
        """Normalize with `torch.nn.SyncBatchNorm`, which supports only CUDA; see `by_hand`."""
        key = (x.shape[1], eps, momentum, running[0] is None, affine[0] is None)
        if key not in self._layers:
            tracks, scales = running[0] is not None, affine[0] is not None
            # On "meta": the layer only supplies code, the network supplies the tensors.
            self._layers[key] = nn.SyncBatchNorm(
                x.shape[1], eps, momentum, scales, tracks, device="meta"
            )
        names = ("running_mean", "running_var", "weight", "bias")
        tensors = {
            name: tensor
            for name, tensor in zip(names, (*running, *affine), strict=True)
            if tensor is not None
        }
        normal: torch.Tensor = functional_call(self._layers[key], tensors, (x,))
        return normal


def by_hand(
    x: torch.Tensor,
    running: tuple[torch.Tensor | None, torch.Tensor | None],
    affine: tuple[torch.Tensor | None, torch.Tensor | None],
    momentum: float,
    eps: float,
) -> torch.Tensor:
    """Normalize over the images of all processes, as one process would.

    Parameters
    ----------
    x
        `(B, C, ...)` floats: this process's images, at least one.
    running
        `(C,)` running mean and variance, updated in place; or None.
    affine
        `(C,)` weight and bias; or None.
    momentum
        Share of the running statistics that this batch replaces.
    eps
        Added to the variance.
    """
    dims = [0, *range(2, x.dim())]
    shape = (1, -1, *[1] * (x.dim() - 2))
    values = x.float()
    n_here = values.new_full((1,), x.numel() / x.shape[1])
    sums = _Sum.apply(torch.cat([values.sum(dims), n_here]))
    n = sums[-1].detach()
    mean = sums[:-1] / n
    centered = values - mean.reshape(shape)
    variance = _Sum.apply(centered.square().sum(dims)) / n
    with torch.no_grad():
        for average, new in zip(running, (mean, variance * n / (n - 1)), strict=True):
            if average is not None:
                average.lerp_(new.to(average.dtype), momentum)
    normal = centered * torch.rsqrt(variance + eps).reshape(shape)
    weight, bias = affine
    if weight is not None:
        normal = normal * weight.reshape(shape)
    if bias is not None:
        normal = normal + bias.reshape(shape)
    return normal.to(x.dtype)


class _Sum(torch.autograd.Function):
    """Sum over processes; the gradient is summed too, since each process has its own loss."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
        total = values.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total
