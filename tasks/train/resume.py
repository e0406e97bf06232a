"""Where a training stands, after each epoch: one file, whole or not there.

A training that was killed goes on after its last finished epoch and ends with the same bits as one
that was not: every epoch's chance comes from the seed and the epoch alone, so that the weights,
what the optimiser remembers and the history are all there is to keep.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors

from tasks.core.files import write_bytes

FILE = "progress.safetensors"
State = dict[str, torch.Tensor]


@dataclass
class Progress:
    """A training after `epoch` epochs.

    Attributes
    ----------
    epoch
        Finished epochs.
    history
        One dict an epoch.
    best_epoch
        The epoch whose weights are the best so far (0: those it started from).
    weights, best_weights
        States of the network, now and at the best epoch.
    moments
        What the optimiser remembers; see `optimiser_moments`.
    seconds
        Time spent in training so far, that of earlier calls included.
    pieces
        Parts that each batch is cut into, so that it fits into memory.
    """

    epoch: int
    history: list[dict[str, float | None]]
    best_epoch: int
    weights: State
    best_weights: State
    moments: State = field(default_factory=dict)
    seconds: float = 0.0
    pieces: int = 1


def save_progress(folder: Path, progress: Progress, fingerprint: str) -> None:
    """Write the progress atomically; `fingerprint` says what is trained on what."""
    parts = {
        "weights": progress.weights,
        "best": progress.best_weights,
        "moments": progress.moments,
    }
    tensors = {
        f"{part}/{name}": tensor.detach().cpu().contiguous().clone()
        for part, state in parts.items()
        for name, tensor in state.items()
    }
    about = json.dumps(
        {
            "fingerprint": fingerprint,
            "epoch": progress.epoch,
            "best_epoch": progress.best_epoch,
            "history": progress.history,
            "seconds": progress.seconds,
            "pieces": progress.pieces,
        }
    )
    write_bytes(folder / FILE, save_tensors(tensors, {"progress": about}))


def load_progress(folder: Path, fingerprint: str) -> Progress | None:
    """Read the progress back; None where there is none, or it belongs to something else."""
    try:
        with safe_open(folder / FILE, framework="pt") as file:
            about = json.loads(file.metadata()["progress"])
            if about["fingerprint"] != fingerprint:
                return None
            parts: dict[str, State] = {"weights": {}, "best": {}, "moments": {}}
            for key in file.keys():  # noqa: SIM118 - a safetensors file is no mapping
                part, name = key.split("/", 1)
                parts[part][name] = file.get_tensor(key)
    except (FileNotFoundError, SafetensorError, KeyError, TypeError, ValueError):
        return None  # begin anew: nothing is lost but time
    return Progress(
        about["epoch"],
        about["history"],
        about["best_epoch"],
        parts["weights"],
        parts["best"],
        parts["moments"],
        about["seconds"],
        about["pieces"],
    )


def optimiser_moments(optimiser: torch.optim.Optimizer) -> State:
    """Return all that an optimiser remembers, whichever it is.

    Returns
    -------
    dict
        By `tensor.<parameter>.<name>` a parameter's tensors, by `number.<parameter>.<name>` its
        numbers and by `group.<group>.<name>` those of its group, such as Ranger's count of steps;
        numbers as tensors without dimensions. A copy: steps that follow do not change it.
    """
    content = optimiser.state_dict()
    kept: State = {}
    for index, memory in content["state"].items():
        for name, value in memory.items():
            if isinstance(value, torch.Tensor):
                kept[f"tensor.{index}.{name}"] = value.detach().to("cpu", copy=True)
            elif _is_number(value):
                kept[f"number.{index}.{name}"] = _as_tensor(value)
    for index, group in enumerate(content["param_groups"]):
        for name, value in group.items():
            if _is_number(value):
                kept[f"group.{index}.{name}"] = _as_tensor(value)
    return kept


def restore_moments(optimiser: torch.optim.Optimizer, moments: State) -> None:
    """Put all that an optimiser remembered back, each tensor in its weight's memory layout.

    Fused optimisers walk through the memory of weights and moments side by side, so that a moment
    in another layout would silently belong to other weights. What the optimiser has learnt
    meanwhile is forgotten: with the moments of a fresh one it is as fresh.
    """
    groups = [
        {name: value for name, value in group.items() if not _is_number(value)}
        for group in optimiser.state_dict()["param_groups"]
    ]
    weights = [weight for group in optimiser.param_groups for weight in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for key, tensor in moments.items():
        kind, index, name = key.split(".", 2)
        if kind == "group":
            groups[int(index)][name] = tensor.item()
        elif kind == "number":
            state.setdefault(int(index), {})[name] = tensor.item()
        else:
            state.setdefault(int(index), {})[name] = _placed(tensor, weights[int(index)])
    optimiser.load_state_dict({"state": state, "param_groups": groups})


def _placed(tensor: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Copy a tensor into its weight's memory layout; a count of steps has none."""
    if tensor.shape != weight.shape:
        return tensor.clone()
    return torch.empty_like(weight, dtype=tensor.dtype).detach().copy_(tensor)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _as_tensor(value: float) -> torch.Tensor:
    """Keep a Python number to its last bit."""
    return torch.tensor(value, dtype=torch.int64 if isinstance(value, int) else torch.float64)
