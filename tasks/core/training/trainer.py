"""Training and validation of one epoch on a device.

An epoch depends only on the seed and its number, so a resumed training, or one with another number
of processes, does the same.

Reading a loss on CUDA waits for the device, and several processes have to exchange it. So losses
stay on the device and are read every few steps.

Freed memory stays in the process for the next step. By default glibc returns large blocks to the
kernel when they are freed. The kernel then zeroes every page when the next step allocates again,
which costs a fifth to a third of a step's CPU time. The price is memory: the process holds its peak
until it ends, plus fragmentation (a quarter more was measured).
https://man7.org/linux/man-pages/man3/mallopt.3.html
"""

import ctypes
import sys
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from tasks.core.errors import DivergedError, ModelError
from tasks.core.models.device import make_deterministic, on_device, uses_bfloat16
from tasks.core.models.predictor import Normalization
from tasks.core.models.spec import ModelSpec
from tasks.core.training.config import TrainConfig
from tasks.core.training.data.dataset import ImageDataset
from tasks.core.training.data.loader import batches, draw_epoch, sequential_batches
from tasks.core.training.distributed import ProcessGroup
from tasks.core.training.losses import label_loss
from tasks.core.training.optimizers import learning_rate, make_optimizer
from tasks.core.training.out_of_memory import (
    double_accumulation_steps,
    free_memory,
    is_out_of_memory,
    oom_message,
)
from tasks.core.training.step import (
    TrainableNetwork,
    compile_fallback_message,
    is_compile_error,
    should_compile,
    train_step,
)
from tasks.core.training.strategy import Strategy
from tasks.core.training.training_state import (
    State,
    TrainingState,
    optimizer_state,
    restore_optimizer_state,
)
from tasks.core.training.validation import worst_recall_score

_EVERY = 50  # steps between two reads, if reading costs time
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # as malloc.h numbers them
_SETTINGS = ((_MMAP_THRESHOLD, 2**30), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**26))  # bytes
_VALIDATION_BATCH = 128
_MAX_MOMENTS = 3  # copies of the weights in the optimizer state: 3 in Ranger, the others have fewer


class LossAccumulator:
    """Accumulator of the losses of one epoch.

    `group`'s processes each add the loss of their own images. `epoch`, `n_steps` and
    `learning_rate` are for the error message.
    """

    def __init__(self, group: ProcessGroup, epoch: int, n_steps: int, learning_rate: float) -> None:
        self._group = group
        self._epoch = epoch
        self._n_steps = n_steps
        self._learning_rate = learning_rate
        reads_are_free = group.size == 1 and group.device.type == "cpu"
        self._every = 1 if reads_are_free else _EVERY
        self._pending: list[torch.Tensor] = []
        self._n_read = 0
        self._total = 0.0

    def add(self, loss: torch.Tensor) -> None:
        """Add a step's loss, a scalar: the sum over this process's images."""
        self._pending.append(loss.detach())
        if len(self._pending) >= self._every:
            self._read_losses()

    def mean(self, n_images: int) -> float:
        """Return the mean over the epoch's images; call it once, after the last step."""
        self._read_losses()
        return self._total / n_images

    def _read_losses(self) -> None:
        if not self._pending:
            return
        losses = self._group.add_up(torch.stack(self._pending)).double().cpu()  # (steps,)
        bad = torch.nonzero(~torch.isfinite(losses))
        if len(bad):
            self._raise_diverged(self._n_read + int(bad[0]) + 1)
        self._n_read += len(losses)
        self._total += float(losses.sum())
        self._pending.clear()

    def _raise_diverged(self, step: int) -> None:
        raise DivergedError(
            f"the training diverged in epoch {self._epoch} at step {step} of {self._n_steps} (the "
            f"loss is not finite); choose a learning_rate below {self._learning_rate}"
        )


def retain_freed_memory() -> bool:
    """Make glibc keep freed memory; return whether it does.

    Other allocators are left unchanged. The setting cannot be undone, so only processes that end
    after training should use it.
    """
    if sys.platform != "linux":
        return False
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is None:
        return False
    return all([set_option(option, value) for option, value in _SETTINGS])


@dataclass(frozen=True)
class ValidationResult:
    """Validation result of the current weights.

    Attributes
    ----------
    loss
        Mean label loss.
    recall
        Mean recall of the worst group over its emotions.
    accuracy
        Share of correct predictions.
    found
        `(N,)` int64: predicted label of each image.
    """

    loss: float
    recall: float
    accuracy: float
    found: np.ndarray


class Trainer:
    """The network, its optimizer and its device.

    `module` is trained in place on the images `train`.
    """

    def __init__(
        self,
        module: nn.Module,
        spec: ModelSpec,
        recipe: TrainConfig,
        strategy: Strategy,
        train: ImageDataset,
        group: ProcessGroup,
    ) -> None:
        self.recipe, self.strategy, self.group = recipe, strategy, group
        self.pieces = 1
        make_deterministic(group.device)
        if group.device.type == "cpu":
            retain_freed_memory()
        self.module = on_device(module, group.device)
        counts = np.bincount(train.targets, minlength=len(spec.labels))
        self._label_loss = label_loss(recipe.loss, counts)
        self._objective = strategy.objective(
            self.module, spec, train, group.device, self._label_loss
        )
        self._freezes = strategy.freezes(module)
        trainable = set(strategy.trainable(module))
        for name, weight in module.named_parameters():
            weight.requires_grad_(name in trainable)
        self.shown = strategy.shown(len(train))
        # Batches of at least `batch_size` without a small remainder, which batch norm cannot use.
        self._n_batches = max(1, self.shown // recipe.batch_size)
        self._check_batch_size()
        weights = [weight for weight in module.parameters() if weight.requires_grad]
        self.optimizer = make_optimizer(recipe, weights)
        self._network = TrainableNetwork(
            self.module,
            Normalization(spec, group.device),
            uses_bfloat16(recipe.precision, group.device, module),
            group,
            should_compile(recipe, group.device),
        )

    @property
    def smallest_batch(self) -> int:
        """Return the size of the smallest batch, over all processes."""
        return self.shown // self._n_batches

    def weights(self) -> State:
        """Return a copy of the network's state."""
        state = self.module.state_dict()
        return {name: tensor.detach().cpu().clone() for name, tensor in state.items()}

    def moments(self) -> State:
        """Return the optimizer's state."""
        return optimizer_state(self.optimizer)

    def restore(self, progress: TrainingState) -> None:
        """Restore a training state."""
        self.module.load_state_dict(progress.weights)
        restore_optimizer_state(self.optimizer, progress.moments)
        self.pieces = max(self.pieces, progress.pieces)

    def train_epoch(self, dataset: ImageDataset, epoch: int) -> float:
        """Train one epoch and return its mean loss; raise ModelError if the loss is not finite."""
        self.module.train(not self._freezes)  # frozen: keep batch-norm statistics
        # For dropout, which each process draws separately.
        torch.manual_seed(self.recipe.seed * 100_003 + epoch + (self.group.rank << 40))
        rng = np.random.default_rng([self.recipe.seed, epoch])
        order = self.strategy.order(dataset, rng)
        drawn = draw_epoch(dataset, order, self.recipe.augmentation, rng)
        losses = LossAccumulator(self.group, epoch, self._n_batches, self.recipe.learning_rate)
        first = (epoch - 1) * self._n_batches
        with closing(batches(dataset, drawn, self._n_batches, self.group)) as epoch_batches:
            for step, batch in enumerate(epoch_batches, start=first):
                self._set_rate(step)
                loss = train_step(
                    self._network,
                    self._objective,
                    self.optimizer,
                    batch,
                    self.group,
                    self.pieces,
                )
                losses.add(loss)
        return losses.mean(len(order))

    def validate(self, dataset: ImageDataset) -> ValidationResult:
        """Predict all images; processes share them batch by batch."""
        self.module.eval()
        device = self.group.device
        batch_size = max(1, _VALIDATION_BATCH // self.pieces)
        with (
            torch.inference_mode(),
            closing(sequential_batches(dataset, batch_size, self.group)) as batches_here,
        ):
            losses = torch.zeros(len(dataset), device=device)
            found = torch.zeros(len(dataset), dtype=torch.int64, device=device)
            for batch in batches_here:
                logits = self._network.logits(batch.pixels.to(device, non_blocking=True))
                batch_slice = slice(batch.rows[0], batch.rows[-1] + 1)
                targets = batch.targets.to(device, non_blocking=True)
                losses[batch_slice] = self._label_loss(logits, targets)
                found[batch_slice] = logits.argmax(dim=1)
            self.group.add_up(losses)  # each process has filled in its own rows
            predictions = self.group.add_up(found).cpu().numpy()
        return ValidationResult(
            float(losses.double().mean()),
            worst_recall_score(dataset.targets, predictions, dataset.groups),
            float((dataset.targets == predictions).mean()),
            predictions,
        )

    def mend(self, error: BaseException) -> str | None:
        """Handle an error of a step and return a message; None if it cannot be handled.

        Raises
        ------
        ModelError
            If memory does not hold one image, or on one of several devices, whose processes
            cannot go back together.
        """
        if self._network.compiled and is_compile_error(error):
            message = compile_fallback_message(self.recipe, error)
            self._network.plain()
            return message
        if not is_out_of_memory(error):
            return None
        n_processes = self.group.size
        if n_processes > 1:
            raise ModelError(
                f"out of memory in process {self.group.rank + 1} of {n_processes}; free the device "
                "and start again to go on after the last epoch, or choose a smaller batch_size"
            )
        self.pieces = double_accumulation_steps(self.pieces, self.smallest_batch, n_processes)
        return oom_message(self.pieces, self.smallest_batch, n_processes)

    def find_pieces(self, dataset: ImageDataset) -> str | None:
        """Find the number of accumulation steps for several processes; return a message if above 1.

        A process that runs out of memory in the middle of a step would leave the others waiting, so
        each tries one batch before the first step.
        """
        if self.group.size == 1:
            return None
        largest = -(-self.shown // self._n_batches)
        part = self.group.part(np.arange(largest))
        pixels = torch.from_numpy(dataset.batch(np.zeros(len(part), dtype=np.int64)))
        while not self._fits(pixels[: -(-len(part) // self.pieces)]):
            self.pieces = double_accumulation_steps(
                self.pieces, self.smallest_batch, self.group.size
            )
            free_memory(self.group.device)
        self.pieces = self.group.largest(self.pieces)
        if self.pieces == 1:
            return None
        return oom_message(self.pieces, self.smallest_batch, self.group.size)

    def _fits(self, pixels: torch.Tensor) -> bool:
        """Try a forward and backward pass with memory for the optimizer; change nothing."""
        self.module.eval()
        weights = [weight for weight in self.module.parameters() if weight.requires_grad]
        try:
            reserved = [torch.empty_like(weight) for weight in weights for _ in range(_MAX_MOMENTS)]
            self._network.logits(pixels.to(self.group.device)).sum().backward()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return False
        finally:
            self.optimizer.zero_grad(set_to_none=True)
        return bool(reserved)

    def _set_rate(self, step: int) -> None:
        rate = learning_rate(self.recipe, step, self._n_batches * self.recipe.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _check_batch_size(self) -> None:
        if self.smallest_batch < self.group.size:
            raise ModelError(
                f"{self.group.size} processes cannot share a batch of {self.smallest_batch} "
                "pictures; choose a larger batch_size or start fewer"
            )
