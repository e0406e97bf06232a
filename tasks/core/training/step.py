"""One optimizer step, with gradient accumulation and `torch.compile` if the config asks for it.

The compiled function shares the network's weights, so parameter names and saved files stay those of
the plain network. On a CPU compilation takes a minute or two and then saves mobilenet_v3_small
about a tenth of each step and a small network nothing. So `auto` compiles only on CUDA.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tasks.core.errors import ModelError
from tasks.core.models.predictor import Normalization
from tasks.core.training.config import TrainConfig
from tasks.core.training.data.augmentation import AugmentParams, augment
from tasks.core.training.data.loader import Batch
from tasks.core.training.distributed import ProcessGroup
from tasks.core.training.strategy import Objective
from tasks.core.training.sync_batch_norm import SynchronizedBatchNorm, has_batch_norm

Forward = Callable[[torch.Tensor], torch.Tensor]
_MAX_REASON_CHARACTERS = 160


def should_compile(recipe: TrainConfig, device: torch.device) -> bool:
    """Return whether to compile a network on a device."""
    return recipe.compile == "always" or (recipe.compile == "auto" and device.type == "cuda")


def is_compile_error(error: BaseException) -> bool:
    """Return whether an error comes from `torch.compile`."""
    from torch._dynamo.exc import TorchDynamoException  # has no public name

    return isinstance(error, TorchDynamoException)


def compile_fallback_message(recipe: TrainConfig, error: BaseException) -> str:
    """Return the message of the fallback; raise ModelError if compilation is mandatory."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    reason = lines[0][:_MAX_REASON_CHARACTERS]
    if recipe.compile == "always":
        raise ModelError(
            f"torch.compile cannot compile this network here ({reason}); set compile: never"
        )
    return (
        f"torch.compile cannot compile this network here ({reason}); training continues without it"
    )


class TrainableNetwork:
    """A trainable network from pixels to logits, in the recipe's precision.

    Parameters
    ----------
    bfloat16
        Whether to compute in bf16; logits are float32 in any case.
    compiling
        Whether to use `torch.compile` for the training pass.
    """

    def __init__(
        self,
        module: nn.Module,
        normalize: Normalization,
        bfloat16: bool,
        group: ProcessGroup,
        compiling: bool,
    ) -> None:
        self.module = module
        self._normalize = normalize
        self._bfloat16 = bfloat16
        self._device = group.device
        self._wrapped = group.wrapped(module)
        shares_norm = group.size > 1 and has_batch_norm(module)
        self._norm = SynchronizedBatchNorm() if shares_norm else nullcontext()
        # A compiled network would bypass the interception of its batch normalization.
        self.compiled = compiling and not shares_norm
        self._train: Forward = torch.compile(self._wrapped) if self.compiled else self._wrapped

    def train_logits(self, pixels: torch.Tensor, changes: AugmentParams | None) -> torch.Tensor:
        """Return logits `(B, K)` of augmented images, in the module's current mode."""
        x = self._input(pixels if changes is None else augment(pixels, changes))
        with self._norm, self._autocast():
            return self._train(x).float()

    def logits(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return logits `(B, K)` of unmodified images; the module must be in evaluation mode."""
        with self._autocast():
            logits: torch.Tensor = self.module(self._input(pixels))
        return logits.float()

    def gradients_stay(self) -> AbstractContextManager[None]:
        """Return a context without gradient synchronization, for all but the last part."""
        if isinstance(self._wrapped, DistributedDataParallel):
            return self._wrapped.no_sync()
        return nullcontext()

    def plain(self) -> None:
        """Stop using `torch.compile`."""
        self._train, self.compiled = self._wrapped, False

    def _input(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalize images; features are passed on unchanged."""
        return self._normalize(pixels) if pixels.dim() == 4 else pixels

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._bfloat16)


def train_step(
    network: TrainableNetwork,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    group: ProcessGroup,
    pieces: int,
) -> torch.Tensor:
    """Update the weights by one batch; return this process's summed loss, on the device.

    `batch` is this process's part, processed in `pieces` parts whose gradients are accumulated. The
    gradients are averaged over the images of all processes.
    """
    optimizer.zero_grad(set_to_none=True)
    pixels = batch.pixels.to(group.device, non_blocking=True)
    targets = batch.targets.to(group.device, non_blocking=True)
    n_pieces = min(pieces, batch.size // group.size)  # equal in every process
    losses = []
    parts = np.array_split(np.arange(len(batch.rows)), n_pieces)
    for index, part in enumerate(parts, start=1):
        part_slice = slice(part[0], part[-1] + 1)
        changes = batch.changes and batch.changes.of(part, group.device)
        with nullcontext() if index == n_pieces else network.gradients_stay():
            logits = network.train_logits(pixels[part_slice], changes)
            loss = objective(logits, batch.rows[part_slice], targets[part_slice]).sum()
            # DDP averages gradients over processes, each of which has a part of the batch.
            (loss * (group.size / batch.size)).backward()
        losses.append(loss.detach())
    optimizer.step()
    return torch.stack(losses).sum()
