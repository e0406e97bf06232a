"""Training state for resuming, written atomically after each epoch.

A killed training resumes after its last finished epoch and produces the same bits as an
uninterrupted one. Every epoch's random numbers depend only on the seed and the epoch, so the
weights, the optimizer state and the history are the complete state.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import nn

from tasks.core.files import write_bytes

FILE = "progress.safetensors"
State = dict[str, torch.Tensor]


@dataclass
class TrainingState:
    """State of a training after `epoch` epochs.

    Attributes
    ----------
    history
        One dict per epoch.
    best_epoch
        The epoch with the best weights so far (0: the initial weights).
    moments
        Optimizer state; see `optimizer_state`.
    seconds
        Training time so far, including earlier runs.
    pieces
        Accumulation steps per batch, so that it fits into memory.
    """

    epoch: int
    history: list[dict[str, float | None]]
    best_epoch: int
    weights: State
    best_weights: State
    moments: State = field(default_factory=dict)
    seconds: float = 0.0
    pieces: int = 1


def save_progress(folder: Path, progress: TrainingState, fingerprint: str) -> None:
    """Write the state atomically; `fingerprint` identifies the training."""
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
    metadata = json.dumps(
        {
            "fingerprint": fingerprint,
            "epoch": progress.epoch,
            "best_epoch": progress.best_epoch,
            "history": progress.history,
            "seconds": progress.seconds,
            "pieces": progress.pieces,
        }
    )
    write_bytes(folder / FILE, save_tensors(tensors, {"progress": metadata}))


def load_progress(folder: Path, fingerprint: str) -> TrainingState | None:
    """Read the state; None if there is none or it belongs to another training."""
    try:
        with safe_open(folder / FILE, framework="pt") as file:
            metadata = json.loads(file.metadata()["progress"])
            if metadata["fingerprint"] != fingerprint:
                return None
            parts: dict[str, State] = {"weights": {}, "best": {}, "moments": {}}
            for key in file.keys():  # noqa: SIM118 - a safetensors file is no mapping
                part, name = key.split("/", 1)
                parts[part][name] = file.get_tensor(key)
    except (FileNotFoundError, SafetensorError, KeyError, TypeError, ValueError):
        return None  # start again: only time is lost
    return TrainingState(
        metadata["epoch"],
        metadata["history"],
        metadata["best_epoch"],
        parts["weights"],
        parts["best"],
        parts["moments"],
        metadata["seconds"],
        metadata["pieces"],
    )


def optimizer_state(optimizer: torch.optim.Optimizer) -> State:
    """Return a copy of any optimizer's state.

    Keys are `tensor.<parameter>.<name>` for tensors of a parameter, `number.<parameter>.<name>` for
    its numbers and `group.<group>.<name>` for numbers of its group, such as Ranger's step count.
    Numbers become tensors without dimensions.
    """
    content = optimizer.state_dict()
    result: State = {}
    for index, parameter_state in content["state"].items():
        for name, value in parameter_state.items():
            if isinstance(value, torch.Tensor):
                result[f"tensor.{index}.{name}"] = value.detach().to("cpu", copy=True)
            elif _is_number(value):
                result[f"number.{index}.{name}"] = _as_tensor(value)
    for index, group in enumerate(content["param_groups"]):
        for name, value in group.items():
            if _is_number(value):
                result[f"group.{index}.{name}"] = _as_tensor(value)
    return result


def restore_optimizer_state(optimizer: torch.optim.Optimizer, moments: State) -> None:
    """Replace the optimizer's state, each tensor in its weight's memory layout.

    Fused optimizers iterate over the memory of weights and moments in parallel, so a moment in
    another layout would silently be applied to the wrong weights. The moments of a fresh optimizer
    reset this one.
    """
    groups = [
        {name: value for name, value in group.items() if not _is_number(value)}
        for group in optimizer.state_dict()["param_groups"]
    ]
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for key, tensor in moments.items():
        kind, index, name = key.split(".", 2)
        if kind == "group":
            groups[int(index)][name] = tensor.item()
        elif kind == "number":
            state.setdefault(int(index), {})[name] = tensor.item()
        else:
            state.setdefault(int(index), {})[name] = _in_layout_of(tensor, weights[int(index)])
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def hash_weights(module: nn.Module, digest: "hashlib._Hash") -> None:
    """Update a digest with the names and values of a network's state."""
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())


def _in_layout_of(tensor: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Copy a tensor into its weight's memory layout; step counts have none."""
    if tensor.shape != weight.shape:
        return tensor.clone()
    return torch.empty_like(weight, dtype=tensor.dtype).detach().copy_(tensor)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _as_tensor(value: float) -> torch.Tensor:
    """Convert a Python number without loss of precision."""
    return torch.tensor(value, dtype=torch.int64 if isinstance(value, int) else torch.float64)
