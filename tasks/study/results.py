"""What a run found, as the stage `study_run` left it in study/results/<key>/."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.core.errors import DataError
from tasks.core.tables import read_csv

RESULT, HISTORY, VALIDATION = "result.json", "history.csv", "validation.csv"
MODEL = "model"  # the folder of a run's model, where the run went to the end
_REQUIRED = ("round", "arm", "seed", "until", "epochs", "parameters", "train_seconds")


@dataclass(frozen=True)
class Result:
    """One run's findings.

    Attributes
    ----------
    key
        The run's name.
    facts
        `result.json`: `round, arm, seed, until, epochs, backbone, parameters, train_seconds,
        pictures_per_second, input_size_px, device, kept_epoch, valid_recall_score,
        valid_accuracy_score, valid_loss, train_pictures, validation_pictures`, and `failed` (one
        line, where the training could not go on; then the figures of validation are not read).
    history
        One row an epoch: `epoch, train_loss, valid_loss, valid_recall_score,
        valid_accuracy_score`.
    validation
        One row a validation picture at the kept epoch: `image_id, subject_id, subject_known,
        age_band, gender, emotion, y_pred`.
    """

    key: str
    facts: Mapping[str, Any]
    history: pd.DataFrame
    validation: pd.DataFrame

    @property
    def failed(self) -> str:
        """Say why the training could not go on; "" where it could."""
        return str(self.facts.get("failed") or "")

    @property
    def parameters(self) -> int:
        """Return how many numbers the network learns."""
        return int(self.facts["parameters"])


def read_results(folder: Path) -> dict[str, Result]:
    """Read every finished run below study/results; a run that has not finished is not there.

    Raises
    ------
    DataError
        One line for a result that cannot be read.
    """
    found = sorted(folder.glob(f"*/{RESULT}"))
    return {path.parent.name: read_result(path.parent) for path in found}


def read_result(folder: Path) -> Result:
    """Read one run's findings; see `read_results`."""
    try:
        facts = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        missing = [name for name in _REQUIRED if name not in facts]
        if missing:
            raise DataError(f"{folder / RESULT}: lacks {', '.join(missing)}")
        history = read_csv(folder / HISTORY)
        words = dict.fromkeys(("image_id", "subject_id", "emotion", "y_pred"), "str")
        validation = read_csv(folder / VALIDATION, dtype=words, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: is no finished run ({error}); delete it") from None
    return Result(folder.name, facts, history, validation)
