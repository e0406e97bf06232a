"""The training loop: epoch after epoch, and which of them is kept.

The best epoch has the highest mean recall over the emotions of the validation pictures, of the
worst group where they are of several; among equals, the lowest validation loss. Where the network
comes already trained, its untouched weights (epoch 0) compete too, so that fine-tuning never ends
with a model that validates worse than it began. Or, where the recipe says so, the epoch with the
highest validation accuracy is kept, or the last, whatever it is like.

After each epoch everything is on the disk, so that a training which was killed goes on there. With
`torchrun` several processes train together; all but the first end here.
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

from tasks.core import models, ranks
from tasks.core.errors import DivergedError
from tasks.core.models.spec import ModelSpec
from tasks.core.progress import say, track
from tasks.train.distributed import Group, joined
from tasks.train.memory import clear_up
from tasks.train.pictures import Pictures
from tasks.train.recipe import Recipe
from tasks.train.resume import Progress, load_progress, save_progress
from tasks.train.strategy import Strategy
from tasks.train.trainer import Trainer, Validated

HISTORY_COLUMNS: tuple[str, ...] = (
    "epoch",
    "train_loss",
    "valid_loss",
    "valid_recall_score",
    "valid_accuracy_score",
)
Result = TypeVar("Result")


@dataclass(frozen=True)
class Fitted:
    """What a training came to.

    Attributes
    ----------
    module
        The network with the kept weights, on the CPU, in evaluation mode.
    best_epoch
        The epoch that they are from.
    history
        One row an epoch, with `HISTORY_COLUMNS`.
    seconds
        Time spent in the steps of all epochs, earlier calls included; validation is not in it.
    pictures_per_second
        Shown in training, in that time.
    found
        `(N,)` int64: which label the kept weights give each validation picture.
    pieces
        Into how many parts a batch was cut so that it fits into memory; 1: none.
    """

    module: nn.Module
    best_epoch: int
    history: pd.DataFrame
    seconds: float
    pictures_per_second: float
    found: np.ndarray
    pieces: int


def fit(
    module: nn.Module,
    spec: ModelSpec,
    train: Pictures,
    validation: Pictures,
    recipe: Recipe,
    strategy: Strategy,
    work: Path,
    from_trained: bool,
    until: int | None = None,
) -> Fitted:
    """Train a network and keep the epoch that the recipe asks for.

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
    until
        The epoch after which to stop, to go on another time; None: the recipe's last.

    Raises
    ------
    ModelError
        Where the loss is no finite number, or memory does not hold one picture.
    PartDone
        In every process but the first, when all is done.
    """
    fingerprint = _fingerprint(module, train, validation, recipe, strategy)
    with joined(recipe.device) as group:
        trainer = Trainer(module, spec, recipe, strategy, train, group)
        if line := trainer.find_pieces(train):
            _say(line, group)
        run = _Run(trainer, train, validation, recipe)
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
    ranks.first_alone()
    return Fitted(
        module.cpu().eval(),
        progress.best_epoch,
        pd.DataFrame(progress.history, columns=list(HISTORY_COLUMNS)),
        progress.seconds,
        trainer.shown * progress.epoch / progress.seconds,
        found,
        progress.pieces,
    )


def best_epoch(history: list[dict[str, float | None]], score: str = "valid_recall_score") -> int:
    """Name the best epoch: highest score, then lowest loss, then the earliest."""
    best = min(history, key=lambda row: (-_number(row[score]), _number(row["valid_loss"])))
    return int(_number(best["epoch"]))


class _Run:
    """One epoch after another, and the validation of each."""

    def __init__(
        self, trainer: Trainer, train: Pictures, validation: Pictures, recipe: Recipe
    ) -> None:
        self._trainer = trainer
        self._train = train
        self._validation = validation
        self._recipe = recipe
        self._found: tuple[int, np.ndarray] | None = None  # of the kept epoch

    def start(self, from_trained: bool) -> Progress:
        """Return the progress of a training that begins."""
        start = self._trainer.weights()
        progress = Progress(0, [], 0, start, start, self._trainer.moments())
        progress.pieces = self._trainer.pieces
        if from_trained:
            self._note(progress, None, self._validate(0))
        return progress

    def go_on(self, progress: Progress, epoch: int) -> None:
        """Train and validate one more epoch and bring the progress up to date."""
        trainer = self._trainer
        started = time.perf_counter()
        train_loss = self._with_room(
            lambda: trainer.train_epoch(self._train, epoch), lambda: trainer.restore(progress)
        )
        progress.seconds += time.perf_counter() - started
        validated = self._validate(epoch)
        progress.epoch, progress.weights = epoch, trainer.weights()
        progress.moments = trainer.moments()
        progress.pieces = trainer.pieces
        self._note(progress, train_loss, validated)

    def found(self, progress: Progress) -> np.ndarray:
        """Return what the kept weights, which the network has now, say about each picture."""
        if self._found and self._found[0] == progress.best_epoch:
            return self._found[1]
        return self._validate(progress.best_epoch).found

    def _note(self, progress: Progress, train_loss: float | None, validated: Validated) -> None:
        """Add a line to the history and keep the weights if they are to be kept."""
        epoch = progress.epoch
        progress.history.append(_row(epoch, train_loss, validated))
        by_accuracy = self._recipe.keep == "best_accuracy"
        score = "valid_accuracy_score" if by_accuracy else "valid_recall_score"
        if self._recipe.keep == "last" or best_epoch(progress.history, score) == epoch:
            progress.best_epoch, progress.best_weights = epoch, progress.weights
            self._found = epoch, validated.found

    def _validate(self, epoch: int) -> Validated:
        trainer = self._trainer
        validated = self._with_room(lambda: trainer.validate(self._validation), lambda: None)
        if not math.isfinite(validated.loss):
            raise DivergedError(
                f"the training diverged in epoch {epoch} (the validation loss is no finite "
                f"number); choose a learning_rate below {self._recipe.learning_rate}"
            )
        return validated

    def _with_room(self, attempt: Callable[[], Result], go_back: Callable[[], None]) -> Result:
        """Attempt, and where memory does not suffice, again from where it began."""
        while True:
            try:
                return attempt()
            except (RuntimeError, MemoryError) as error:
                line = self._trainer.mend(error)
                if line is None:
                    raise
            # Out here the error is gone, and with it what its frames held in memory.
            clear_up(self._trainer.group.device)
            _say(line, self._trainer.group)
            go_back()


def _say(line: str, group: Group) -> None:
    if group.first:
        say(line)


def _code() -> str:
    """Digest the code that trains: progress that other code made is not gone on from."""
    places = (Path(__file__).parent, Path(models.__file__).parent)
    files = sorted(file for place in places for file in place.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _row(epoch: int, train_loss: float | None, validated: Validated) -> dict[str, float | None]:
    values = (epoch, train_loss, validated.loss, validated.recall, validated.accuracy)
    return dict(zip(HISTORY_COLUMNS, values, strict=True))


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _fingerprint(
    module: nn.Module, train: Pictures, validation: Pictures, recipe: Recipe, strategy: Strategy
) -> str:
    """Digest everything that the outcome follows from."""
    how = [strategy.name, recipe.model_dump(mode="json"), torch.__version__, _code()]
    digest = hashlib.sha256(json.dumps(how, sort_keys=True).encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    for pictures in (train, validation):
        digest.update(pictures.fingerprint())
    return digest.hexdigest()
