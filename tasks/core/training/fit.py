"""The training loop: runs epochs and selects one.

The best epoch has the highest mean recall over the emotions of the validation images (of the worst
group if there are several groups). Ties go to the lowest validation loss. If the network starts
trained, its initial weights (epoch 0) compete too, so fine-tuning never ends with a model that
validates worse than it began. The config can instead select the highest validation accuracy or the
last epoch.

After each epoch the complete state is on disk, so a killed training can resume. With `torchrun`
several processes train together, and all but rank 0 end here.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import torch
from torch import nn

from tasks.core import models
from tasks.core.errors import DivergedError
from tasks.core.models.spec import ModelSpec
from tasks.core.parallel import process
from tasks.core.parallel.progress import say, track
from tasks.core.training.config import TrainConfig
from tasks.core.training.data.dataset import ImageDataset
from tasks.core.training.distributed import ProcessGroup, init_process_group
from tasks.core.training.out_of_memory import free_memory
from tasks.core.training.strategy import Strategy
from tasks.core.training.trainer import Trainer, ValidationResult
from tasks.core.training.training_state import (
    TrainingState,
    hash_weights,
    load_progress,
    save_progress,
)

HISTORY_COLUMNS: tuple[str, ...] = (
    "epoch",
    "train_loss",
    "valid_loss",
    "valid_recall_score",
    "valid_accuracy_score",
)
Result = TypeVar("Result")


@dataclass(frozen=True)
class FitResult:
    """Result of a training.

    Attributes
    ----------
    module
        The network with the selected weights, on the CPU, in evaluation mode.
    best_epoch
        The epoch of these weights.
    history
        One row per epoch, with `HISTORY_COLUMNS`.
    seconds
        Time in training steps, including earlier runs and excluding validation.
    images_per_second
        Training throughput in that time.
    found
        `(N,)` int64: label that the selected weights predict for each validation image.
    pieces
        Accumulation steps per batch, so that it fits into memory; 1: none.
    """

    module: nn.Module
    best_epoch: int
    history: pd.DataFrame
    seconds: float
    images_per_second: float
    found: np.ndarray
    pieces: int


def fit(
    module: nn.Module,
    spec: ModelSpec,
    train: ImageDataset,
    validation: ImageDataset,
    recipe: TrainConfig,
    strategy: Strategy,
    work: Path,
    from_trained: bool,
    until: int | None = None,
) -> FitResult:
    """Train a network and select an epoch as the recipe says.

    Parameters
    ----------
    module
        The initial network; trained in place.
    work
        Folder of the training state; a second call with the same arguments resumes from it.
    from_trained
        Whether the initial weights compete as epoch 0.
    until
        Epoch after which to stop, to be resumed later; None: the recipe's last.

    Raises
    ------
    ModelError
        If the loss is not finite, or memory does not hold one image.
    PartDone
        In every process but rank 0, at the end.
    """
    fingerprint = _fingerprint(module, train, validation, recipe, strategy)
    with init_process_group(recipe.device) as group:
        trainer = Trainer(module, spec, recipe, strategy, train, group)
        if message := trainer.find_pieces(train):
            _print_once(message, group)
        run = _EpochLoop(trainer, train, validation, recipe)
        last = min(until or recipe.epochs, recipe.epochs)
        progress = load_progress(work, fingerprint)
        if progress is None or progress.epoch > last:
            progress = run.start(from_trained)
        else:
            trainer.restore(progress)
        epochs = range(progress.epoch + 1, last + 1)
        for epoch in track(epochs, len(epochs), f"epoch of {recipe.epochs}"):
            run.go_on(progress, epoch)
            if group.first:
                save_progress(work, progress, fingerprint)
        module.load_state_dict(progress.best_weights)
        found = run.found(progress)
    process.first_alone()
    return FitResult(
        module.cpu().eval(),
        progress.best_epoch,
        pd.DataFrame(progress.history, columns=list(HISTORY_COLUMNS)),
        progress.seconds,
        trainer.shown * progress.epoch / progress.seconds,
        found,
        progress.pieces,
    )


def best_epoch(history: list[dict[str, float | None]], score: str = "valid_recall_score") -> int:
    """Return the best epoch: highest score, then lowest loss, then the earliest."""
    best = min(history, key=lambda row: (-_number(row[score]), _number(row["valid_loss"])))
    return int(_number(best["epoch"]))


class _EpochLoop:
    """Runs one epoch after another and validates each."""

    def __init__(
        self, trainer: Trainer, train: ImageDataset, validation: ImageDataset, recipe: TrainConfig
    ) -> None:
        self._trainer = trainer
        self._train = train
        self._validation = validation
        self._recipe = recipe
        self._found: tuple[int, np.ndarray] | None = None  # of the selected epoch

    def start(self, from_trained: bool) -> TrainingState:
        """Return the state of a new training."""
        start = self._trainer.weights()
        progress = TrainingState(0, [], 0, start, start, self._trainer.moments())
        progress.pieces = self._trainer.pieces
        if from_trained:
            self._record_epoch(progress, None, self._validate(0))
        return progress

    def go_on(self, progress: TrainingState, epoch: int) -> None:
        """Train and validate one more epoch and update the state."""
        trainer = self._trainer
        started = time.perf_counter()
        train_loss = self._retry_smaller(
            lambda: trainer.train_epoch(self._train, epoch), lambda: trainer.restore(progress)
        )
        progress.seconds += time.perf_counter() - started
        validated = self._validate(epoch)
        progress.epoch, progress.weights = epoch, trainer.weights()
        progress.moments = trainer.moments()
        progress.pieces = trainer.pieces
        self._record_epoch(progress, train_loss, validated)

    def found(self, progress: TrainingState) -> np.ndarray:
        """Return the predictions of the selected weights, which the network holds now."""
        if self._found and self._found[0] == progress.best_epoch:
            return self._found[1]
        return self._validate(progress.best_epoch).found

    def _record_epoch(
        self, progress: TrainingState, train_loss: float | None, validated: ValidationResult
    ) -> None:
        """Append a row to the history and store the weights if they are selected."""
        epoch = progress.epoch
        progress.history.append(_row(epoch, train_loss, validated))
        by_accuracy = self._recipe.checkpoint == "best_accuracy"
        score = "valid_accuracy_score" if by_accuracy else "valid_recall_score"
        if self._recipe.checkpoint == "last" or best_epoch(progress.history, score) == epoch:
            progress.best_epoch, progress.best_weights = epoch, progress.weights
            self._found = epoch, validated.found

    def _validate(self, epoch: int) -> ValidationResult:
        trainer = self._trainer
        validated = self._retry_smaller(lambda: trainer.validate(self._validation), lambda: None)
        if not math.isfinite(validated.loss):
            raise DivergedError(
                f"the training diverged in epoch {epoch} (the validation loss is not "
                f"finite); choose a learning_rate below {self._recipe.learning_rate}"
            )
        return validated

    def _retry_smaller(self, attempt: Callable[[], Result], restore: Callable[[], None]) -> Result:
        """Run `attempt`; after an error that can be handled, restore the state and retry."""
        while True:
            try:
                return attempt()
            except (RuntimeError, MemoryError) as error:
                message = self._trainer.mend(error)
                if message is None:
                    raise
            # Outside the handler the error's frames, and the memory they held, are released.
            free_memory(self._trainer.group.device)
            _print_once(message, self._trainer.group)
            restore()


def _print_once(line: str, group: ProcessGroup) -> None:
    if group.first:
        say(line)


def _code_digest() -> str:
    """Hash the training code, so that state of other code is not resumed."""
    folders = (Path(__file__).parent, Path(models.__file__).parent)
    files = sorted(file for folder in folders for file in folder.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _row(
    epoch: int, train_loss: float | None, validated: ValidationResult
) -> dict[str, float | None]:
    values = (epoch, train_loss, validated.loss, validated.recall, validated.accuracy)
    return dict(zip(HISTORY_COLUMNS, values, strict=True))


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _fingerprint(
    module: nn.Module,
    train: ImageDataset,
    validation: ImageDataset,
    recipe: TrainConfig,
    strategy: Strategy,
) -> str:
    """Hash everything that determines the result."""
    settings = [strategy.name, recipe.model_dump(mode="json"), torch.__version__, _code_digest()]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    hash_weights(module, digest)
    for dataset in (train, validation):
        digest.update(dataset.fingerprint())
    return digest.hexdigest()
