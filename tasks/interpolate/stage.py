"""Stage `interpolate`: weight interpolation between the base and a fine-tuned model.

Reads models/base, models/<from>, data/split.parquet and the crops; writes models/interpolate. Each
coefficient from 0 (exactly the base model) to 1 (the fine-tuned model) is evaluated on the
validation split, and the one with the best worst group is chosen: M. Wortsman et al. (2022),
"Robust fine-tuning of zero-shot models" (WiSE-FT), arXiv 2109.01903. Nothing is trained. The best
of many scores is biased upward on the images that chose it; `choose` corrects for that with
coefficients.csv. If `from` was skipped, or the base model has no weights to interpolate, the stage
writes skipped.json.
"""

from typing import Annotated, Literal

import numpy as np
import pandas as pd
import torch
from pydantic import Field
from torch import nn

from tasks.core.models.checkpoint import Skipped, load_model, load_seen, load_spec, read_skipped
from tasks.core.params import Section
from tasks.core.paths import Paths
from tasks.core.stages import StageResult
from tasks.core.training.fit import HISTORY_COLUMNS
from tasks.core.training.train_model import COEFFICIENTS, save_model_folder, skip
from tasks.core.training.training_state import State
from tasks.core.training.validation import ValidationScore, load_validation, score_by_group

NAME = "interpolate"


class Params(Section):
    """Section `interpolate` of params.yaml."""

    from_: Annotated[Literal["naive", "head", "replay", "distill"], Field(alias="from")]
    coefficients: Annotated[int, Field(ge=2)]
    by: list[str]
    min_n: Annotated[int, Field(ge=1)]
    device: str
    batch_size: Annotated[int, Field(ge=1)]


def run(params: Params, paths: Paths) -> StageResult:
    """Choose a model between models/base and models/<from> and write models/interpolate."""
    skipped = read_skipped(paths.model(params.from_))
    if skipped:
        labels = load_spec(paths.model("base")).labels
        reason = f"there is no {params.from_} to mix with the base model ({skipped.reason})"
        return skip(paths, NAME, Skipped(reason, labels))
    base, _ = load_model(paths.model("base"))
    tuned, spec = load_model(paths.model(params.from_))
    ends = copy_state(base), copy_state(tuned)
    coefficients = [float(value) for value in np.linspace(0, 1, params.coefficients)]
    verdicts = []
    validation = load_validation(paths, spec, params.by, "interpolate.by")
    for coefficient in coefficients:
        tuned.load_state_dict(lerp_state_dict(*ends, coefficient))
        options = (params.by, params.min_n, params.device, params.batch_size)
        verdicts.append(score_by_group(tuned, spec, validation, *options))
    seen = [load_seen(paths.model(params.from_)), validation.seen(NAME)]
    best = max(range(len(verdicts)), key=lambda index: verdicts[index].rank)  # the first of equals
    tuned.load_state_dict(lerp_state_dict(*ends, coefficients[best]))
    source = f"{coefficients[best]:.2f} of the way from the base model to: {spec.source}"
    spec = spec.model_copy(update={"source": source})
    table = _table(coefficients, verdicts, best)
    no_history = pd.DataFrame(columns=list(HISTORY_COLUMNS))
    save_model_folder(
        paths,
        NAME,
        tuned,
        spec,
        pd.concat(seen, ignore_index=True),
        no_history,
        {COEFFICIENTS: table},
    )
    return _result(params, paths, table, best)


def lerp_state_dict(base: State, tuned: State, coefficient: float) -> State:
    """Interpolate two states of one network; neither is changed.

    Returns `base` for 0, `tuned` for 1 and `(1 - c) * base + c * tuned` in between, including the
    running mean and variance of batch normalization. Integers (the number of batches) are taken
    from `tuned`.
    """
    if coefficient in (0.0, 1.0):
        state = base if coefficient == 0 else tuned
        return {name: tensor.detach().cpu().clone() for name, tensor in state.items()}
    mixed = {}
    for name, end in tuned.items():
        start = base[name].detach().cpu()
        end = end.detach().cpu()
        mixed[name] = (
            torch.lerp(start, end, coefficient) if end.is_floating_point() else end.clone()
        )
    return mixed


def copy_state(module: nn.Module) -> State:
    """Copy a network's state, so that later changes to the network do not affect it."""
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def _table(coefficients: list[float], verdicts: list[ValidationScore], best: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "coefficient": coefficients,
            "worst_group": [verdict.worst_group for verdict in verdicts],
            "worst_recall_score": [verdict.worst for verdict in verdicts],
            "mean_recall_score": [verdict.mean for verdict in verdicts],
            "chosen": [index == best for index in range(len(verdicts))],
        }
    )


def _result(params: Params, paths: Paths, table: pd.DataFrame, best: int) -> StageResult:
    row = table.loc[best]
    series = {
        name: [(step, float(value)) for step, value in enumerate(table[name], start=1)]
        for name in ("coefficient", "worst_recall_score", "mean_recall_score")
    }
    metrics = {
        "coefficient": float(row["coefficient"]),
        "worst_recall_score_at_best": float(row["worst_recall_score"]),
        "mean_recall_score_at_best": float(row["mean_recall_score"]),
    }
    summary = (
        f"{row['coefficient']:.2f} of the way from base to {params.from_}: worst group "
        f"{row['worst_group']}, mean validation recall {row['worst_recall_score']:.1%} (best "
        f"of {len(table)} on these pictures, and so too high)"
    )
    return StageResult(metrics, series, [paths.model(NAME)], summary)
