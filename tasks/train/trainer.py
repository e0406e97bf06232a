"""A network in training on its device: one epoch of steps, one validation.

What happens in an epoch follows from the seed and the epoch alone, so that a training that goes on
later, or on another number of processes, does the same.
"""

from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from tasks.core.errors import ModelError
from tasks.core.models.device import make_repeatable, on_device, uses_bfloat16
from tasks.core.models.recogniser import Normalisation
from tasks.core.models.spec import ModelSpec
from tasks.train.allocator import keep_freed_memory
from tasks.train.batches import batches, draw_epoch, in_order
from tasks.train.compiled import is_of_compiler, wants_compiling, without_compiling
from tasks.train.distributed import Group
from tasks.train.loss_watch import LossWatch
from tasks.train.losses import label_loss
from tasks.train.memory import clear_up, is_out_of_memory, more_pieces, said
from tasks.train.optimisers import learning_rate, make_optimiser
from tasks.train.pictures import Pictures
from tasks.train.recall import worst_recall_score
from tasks.train.recipe import Recipe
from tasks.train.resume import Progress, State, optimiser_moments, restore_moments
from tasks.train.steps import Network, take_step
from tasks.train.strategy import Strategy

_VALIDATION_BATCH = 128
_MOMENTS = 3  # copies of the weights that an optimiser keeps: Ranger, the others fewer


@dataclass(frozen=True)
class Validated:
    """What validation pictures say about the weights.

    Attributes
    ----------
    loss
        Mean over the pictures of the loss with their labels.
    recall
        The worst group's mean recall over its emotions.
    accuracy
        Share of the pictures that are right.
    found
        `(N,)` int64: the label that each picture is given.
    """

    loss: float
    recall: float
    accuracy: float
    found: np.ndarray


class Trainer:
    """The network, its optimiser and its device.

    Parameters
    ----------
    module, spec
        The network as it starts, trained in place, and what it expects.
    recipe, strategy
        How it is trained; what changes, what an epoch shows, and the loss.
    train
        The pictures that it is trained on.
    group
        The processes that train it.
    """

    def __init__(
        self,
        module: nn.Module,
        spec: ModelSpec,
        recipe: Recipe,
        strategy: Strategy,
        train: Pictures,
        group: Group,
    ) -> None:
        self.recipe, self.strategy, self.group = recipe, strategy, group
        self.pieces = 1
        make_repeatable(group.device)
        if group.device.type == "cpu":
            keep_freed_memory()
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
        # At least `batch_size` pictures a batch and no small rest, which batch norm cannot use.
        self._n_batches = max(1, self.shown // recipe.batch_size)
        self._refuse_idle_processes()
        weights = [weight for weight in module.parameters() if weight.requires_grad]
        self.optimiser = make_optimiser(recipe, weights)
        self._network = Network(
            self.module,
            Normalisation(spec, group.device),
            uses_bfloat16(recipe.precision, group.device, module),
            group,
            wants_compiling(recipe, group.device),
        )

    @property
    def smallest_batch(self) -> int:
        """Return the pictures of the smallest batch, over all processes."""
        return self.shown // self._n_batches

    def weights(self) -> State:
        """Copy the network's state."""
        state = self.module.state_dict()
        return {name: tensor.detach().cpu().clone() for name, tensor in state.items()}

    def moments(self) -> State:
        """Return what the optimiser remembers."""
        return optimiser_moments(self.optimiser)

    def restore(self, progress: Progress) -> None:
        """Go back, or on, to where a training stands."""
        self.module.load_state_dict(progress.weights)
        restore_moments(self.optimiser, progress.moments)
        self.pieces = max(self.pieces, progress.pieces)

    def train_epoch(self, pictures: Pictures, epoch: int) -> float:
        """Show an epoch's pictures and return their mean loss; raises ModelError for NaN."""
        self.module.train(not self._freezes)  # frozen: batch normalisation keeps its statistics
        # Drop-out, where there is any; every process has its own.
        torch.manual_seed(self.recipe.seed * 100_003 + epoch + (self.group.rank << 40))
        rng = np.random.default_rng([self.recipe.seed, epoch])
        order = self.strategy.order(pictures, rng)
        drawn = draw_epoch(pictures, order, self.recipe.augmentation, rng)
        watch = LossWatch(self.group, epoch, self._n_batches, self.recipe.learning_rate)
        first = (epoch - 1) * self._n_batches
        with closing(batches(pictures, drawn, self._n_batches, self.group)) as shown:
            for step, batch in enumerate(shown, start=first):
                self._set_rate(step)
                loss = take_step(
                    self._network,
                    self._objective,
                    self.optimiser,
                    batch,
                    self.group,
                    self.pieces,
                )
                watch.add(loss)
        return watch.mean(len(order))

    def validate(self, pictures: Pictures) -> Validated:
        """Ask about all pictures; processes share them by whole batches."""
        self.module.eval()
        device = self.group.device
        at_once = max(1, _VALIDATION_BATCH // self.pieces)
        with torch.inference_mode(), closing(in_order(pictures, at_once, self.group)) as shown:
            losses = torch.zeros(len(pictures), device=device)
            found = torch.zeros(len(pictures), dtype=torch.int64, device=device)
            for batch in shown:
                logits = self._network.logits(batch.pixels.to(device, non_blocking=True))
                own = slice(batch.rows[0], batch.rows[-1] + 1)
                targets = batch.targets.to(device, non_blocking=True)
                losses[own] = self._label_loss(logits, targets)
                found[own] = logits.argmax(dim=1)
            self.group.add_up(losses)  # each process has filled in its own places
            answers = self.group.add_up(found).cpu().numpy()
        return Validated(
            float(losses.double().mean()),
            worst_recall_score(pictures.targets, answers, pictures.groups),
            float((pictures.targets == answers).mean()),
            answers,
        )

    def mend(self, error: BaseException) -> str | None:
        """Change what made a step fail and say what; None where nothing can be changed.

        Raises
        ------
        ModelError
            Where there is not enough memory for one picture, or on one of several devices, whose
            processes cannot go back together.
        """
        if self._network.compiled and is_of_compiler(error):
            line = without_compiling(self.recipe, error)
            self._network.plain()
            return line
        if not is_out_of_memory(error):
            return None
        n_processes = self.group.size
        if n_processes > 1:
            raise ModelError(
                f"out of memory in process {self.group.rank + 1} of {n_processes}; free the device "
                "and start again to go on after the last epoch, or choose a smaller batch_size"
            )
        self.pieces = more_pieces(self.pieces, self.smallest_batch, n_processes)
        return said(self.pieces, self.smallest_batch, n_processes)

    def find_pieces(self, pictures: Pictures) -> str | None:
        """Find, for several processes, how many pieces fit; say so where it is not one.

        A process that runs out of memory in the middle of a step would leave the others waiting;
        so each tries one batch alone before the first step.
        """
        if self.group.size == 1:
            return None
        largest = -(-self.shown // self._n_batches)
        part = self.group.part(np.arange(largest))
        pixels = torch.from_numpy(pictures.batch(np.zeros(len(part), dtype=np.int64)))
        while not self._fits(pixels[: -(-len(part) // self.pieces)]):
            self.pieces = more_pieces(self.pieces, self.smallest_batch, self.group.size)
            clear_up(self.group.device)
        self.pieces = self.group.largest(self.pieces)
        if self.pieces == 1:
            return None
        return said(self.pieces, self.smallest_batch, self.group.size)

    def _fits(self, pixels: torch.Tensor) -> bool:
        """Try one pass with the gradients and the optimiser's memory; nothing is changed."""
        self.module.eval()
        weights = [weight for weight in self.module.parameters() if weight.requires_grad]
        try:
            room = [torch.empty_like(weight) for weight in weights for _ in range(_MOMENTS)]
            self._network.logits(pixels.to(self.group.device)).sum().backward()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return False
        finally:
            self.optimiser.zero_grad(set_to_none=True)
        return bool(room)

    def _set_rate(self, step: int) -> None:
        rate = learning_rate(self.recipe, step, self._n_batches * self.recipe.epochs)
        for group in self.optimiser.param_groups:
            group["lr"] = rate

    def _refuse_idle_processes(self) -> None:
        if self.smallest_batch < self.group.size:
            raise ModelError(
                f"{self.group.size} processes cannot share a batch of {self.smallest_batch} "
                "pictures; choose a larger batch_size or start fewer"
            )
