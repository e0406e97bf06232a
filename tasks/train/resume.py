"""Where a training stands, after each epoch: one file, whole or not there.

A training that was killed goes on after its last finished epoch and ends with the same bits as one
that was not: every epoch's chance comes from the seed and the epoch alone, so that the weights,
Adam's moments and the history are all there is to keep.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

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
        Adam's state by "<parameter index>.<name>".
    """

    epoch: int
    history: list[dict[str, float | None]]
    best_epoch: int
    weights: State
    best_weights: State
    moments: State = field(default_factory=dict)


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
    )


def optimiser_moments(optimiser: torch.optim.Optimizer) -> State:
    """Return Adam's moments by "<parameter index>.<name>"."""
    state = optimiser.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value)
        for index, moments in state.items()
        for name, value in moments.items()
    }


def restore_moments(optimiser: torch.optim.Optimizer, moments: State) -> None:
    """Put Adam's moments back, each in its weight's memory layout.

    Fused Adam walks through the memory of weights and moments side by side, so that a moment in
    another layout would silently belong to other weights.
    """
    content = optimiser.state_dict()
    weights = [weight for group in optimiser.param_groups for weight in group["params"]]
    state: dict[int, State] = {}
    for key, tensor in moments.items():
        index, name = key.split(".", 1)
        weight = weights[int(index)]
        same_shape = tensor.shape == weight.shape  # all but the count of steps
        placed = torch.empty_like(weight).copy_(tensor) if same_shape else tensor
        state.setdefault(int(index), {})[name] = placed.detach()
    optimiser.load_state_dict({"state": state, "param_groups": content["param_groups"]})
