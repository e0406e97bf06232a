"""The training loop: Adam on a strategy's loss, and the checkpoint that validates best.

Best is the highest mean recall over the emotions of the validation pictures, of the worst group
where they are of several; among equals, the lowest validation loss. Where the network comes
already trained, its untouched weights (epoch 0) compete too, so that fine-tuning never ends with a
model that validates worse than it began.
"""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional

from tasks.core.errors import ModelError
from tasks.core.models.device import choose_device, make_repeatable, uses_bfloat16
from tasks.core.models.recogniser import Normalisation
from tasks.core.models.spec import ModelSpec
from tasks.core.progress import track
from tasks.train.augmentation import augment, draw_changes
from tasks.train.pictures import Pictures
from tasks.train.recall import worst_recall_score
from tasks.train.recipe import Recipe
from tasks.train.resume import (
    Progress,
    State,
    load_progress,
    optimiser_moments,
    restore_moments,
    save_progress,
)
from tasks.train.strategy import Strategy

HISTORY_COLUMNS: tuple[str, ...] = ("epoch", "train_loss", "valid_loss", "valid_recall_score")
_VALIDATION_BATCH = 128
_WARM_UP_SHARE = 0.1  # of all steps, over which a cosine schedule rises to the learning rate


@dataclass(frozen=True)
class Fitted:
    """The best weights, the epoch that they are from, and the history (one row an epoch)."""

    module: nn.Module
    best_epoch: int
    history: pd.DataFrame


def fit(
    module: nn.Module,
    spec: ModelSpec,
    train: Pictures,
    validation: Pictures,
    recipe: Recipe,
    strategy: Strategy,
    work: Path,
    from_trained: bool,
) -> Fitted:
    """Train a network and keep the epoch that validates best.

    Parameters
    ----------
    module
        The network as it starts; trained in place.
    spec
        Its input's normalisation.
    train, validation
        Pictures to fit and to choose by.
    recipe
        How.
    strategy
        What changes, what an epoch shows, and the loss.
    work
        A folder for progress; a second call with the same arguments goes on where the first ended.
    from_trained
        Whether the starting weights compete as epoch 0.
    """
    fingerprint = _fingerprint(module, train, validation, recipe, strategy)
    trainer = _Trainer(module, spec, recipe, strategy, train)
    progress = load_progress(work, fingerprint)
    if progress is None:
        history = [_row(0, None, *trainer.validate(validation))] if from_trained else []
        start = trainer.weights()
        progress = Progress(0, history, 0, start, start)
    else:
        trainer.restore(progress)
    epochs = range(progress.epoch + 1, recipe.epochs + 1)
    for epoch in track(epochs, len(epochs), f"epoch of {recipe.epochs}"):
        train_loss = trainer.train_epoch(train, epoch)
        valid_loss, recall = trainer.validate(validation)
        if not math.isfinite(train_loss) or not math.isfinite(valid_loss):
            raise ModelError(
                f"the training diverged in epoch {epoch} (the loss is no finite number); "
                f"choose a learning_rate below {recipe.learning_rate}"
            )
        progress.history.append(_row(epoch, train_loss, valid_loss, recall))
        progress.epoch, progress.weights = epoch, trainer.weights()
        progress.moments = optimiser_moments(trainer.optimiser)
        if best_epoch(progress.history) == epoch:
            progress.best_epoch, progress.best_weights = epoch, progress.weights
        save_progress(work, progress, fingerprint)
    module.load_state_dict(progress.best_weights)
    history = pd.DataFrame(progress.history, columns=list(HISTORY_COLUMNS))
    return Fitted(module.cpu().eval(), progress.best_epoch, history)


def best_epoch(history: list[dict[str, float | None]]) -> int:
    """Name the best epoch: highest mean recall, then lowest loss, then the earliest."""
    best = min(
        history,
        key=lambda row: (-_number(row["valid_recall_score"]), _number(row["valid_loss"])),
    )
    return int(_number(best["epoch"]))


class _Trainer:
    """The network, its optimiser and its device."""

    def __init__(
        self,
        module: nn.Module,
        spec: ModelSpec,
        recipe: Recipe,
        strategy: Strategy,
        train: Pictures,
    ) -> None:
        self.device = choose_device(recipe.device)
        make_repeatable(self.device)
        self.bfloat16 = uses_bfloat16(recipe.precision, self.device)
        self.module = module.to(self.device).to(memory_format=torch.channels_last)
        self.normalise = Normalisation(spec, self.device)
        self.recipe = recipe
        self.strategy = strategy
        self.objective = strategy.objective(self.module, spec, train, self.device)
        self.freezes = strategy.freezes(module)
        trainable = set(strategy.trainable(module))
        for name, weight in module.named_parameters():
            weight.requires_grad_(name in trainable)
        # At least `batch_size` pictures a batch and no small rest, which batch norm cannot use.
        self.n_batches = max(1, strategy.shown(len(train)) // recipe.batch_size)
        self.optimiser = torch.optim.Adam(
            [weight for weight in module.parameters() if weight.requires_grad],
            lr=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            fused=True,
        )

    def weights(self) -> State:
        state = self.module.state_dict()
        return {name: tensor.detach().cpu().clone() for name, tensor in state.items()}

    def restore(self, progress: Progress) -> None:
        self.module.load_state_dict(progress.weights)
        restore_moments(self.optimiser, progress.moments)

    def train_epoch(self, pictures: Pictures, epoch: int) -> float:
        """Show an epoch's pictures and return their mean loss."""
        self.module.train(not self.freezes)  # frozen: batch normalisation keeps its statistics
        torch.manual_seed(self.recipe.seed * 100_003 + epoch)  # drop-out, where there is any
        rng = np.random.default_rng([self.recipe.seed, epoch])
        order = self.strategy.order(len(pictures), rng)
        changes = draw_changes(self.recipe.augmentation, len(order), pictures.pixels.shape[3], rng)
        own = _ranks(order)  # a picture that is shown twice is changed in two ways
        total = 0.0
        for index, part in enumerate(np.array_split(np.arange(len(order)), self.n_batches)):
            rows = order[part]
            step = (epoch - 1) * self.n_batches + index
            self.optimiser.param_groups[0]["lr"] = self._learning_rate(step)
            pixels = torch.from_numpy(pictures.pixels[rows]).to(self.device)
            x = self.normalise(augment(pixels, changes.of(own[part], self.device)))
            targets = torch.from_numpy(pictures.targets[rows]).to(self.device)
            loss = self.objective(self._logits(x), rows, targets)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            self.optimiser.step()
            total += loss.item() * len(rows)
        return total / len(order)

    def validate(self, pictures: Pictures) -> tuple[float, float]:
        """Return the mean loss and the worst group's mean recall over its emotions."""
        self.module.eval()
        loss, predicted = 0.0, []
        with torch.inference_mode():
            for start in range(0, len(pictures), _VALIDATION_BATCH):
                part = slice(start, start + _VALIDATION_BATCH)
                x = self.normalise(torch.from_numpy(pictures.pixels[part]).to(self.device))
                logits = self._logits(x)
                targets = torch.from_numpy(pictures.targets[part]).to(self.device)
                loss += functional.cross_entropy(logits, targets, reduction="sum").item()
                predicted.append(logits.argmax(dim=1).cpu().numpy())
        found = np.concatenate(predicted)
        return loss / len(pictures), worst_recall_score(pictures.targets, found, pictures.groups)

    def _logits(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bfloat16):
            logits: torch.Tensor = self.module(x)
        return logits.float()

    def _learning_rate(self, step: int) -> float:
        if self.recipe.schedule == "constant":
            return self.recipe.learning_rate
        steps = self.n_batches * self.recipe.epochs
        rise = max(1, round(_WARM_UP_SHARE * steps))
        if step < rise:
            return self.recipe.learning_rate * (step + 1) / rise
        done = (step - rise) / max(1, steps - rise)
        return self.recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def _ranks(order: np.ndarray) -> np.ndarray:
    """Count the showings by picture, from 0; of a permutation these are the pictures' own rows."""
    return np.argsort(np.argsort(order, kind="stable"), kind="stable")


def _row(
    epoch: int, train_loss: float | None, valid_loss: float, recall: float
) -> dict[str, float | None]:
    return dict(zip(HISTORY_COLUMNS, (epoch, train_loss, valid_loss, recall), strict=True))


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _fingerprint(
    module: nn.Module, train: Pictures, validation: Pictures, recipe: Recipe, strategy: Strategy
) -> str:
    """Digest everything that the outcome follows from, but the code."""
    how = [strategy.name, recipe.model_dump(mode="json")]
    digest = hashlib.sha256(json.dumps(how, sort_keys=True).encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    for pictures in (train, validation):
        digest.update(pictures.targets.tobytes() + pictures.groups.tobytes())
        for start in range(0, len(pictures), 1024):
            digest.update(np.ascontiguousarray(pictures.pixels[start : start + 1024]))
    return digest.hexdigest()
