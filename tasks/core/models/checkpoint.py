"""A model on disk: its weights, `model.json` (its spec) and `seen.csv`.

Weights are `model.safetensors`, or `model.onnx` with `model.yaml`; never pickles. `seen.csv` names
every picture that had a part in the weights or in choosing them, so that an evaluation can tell
what is held out.
"""

import json
from pathlib import Path

import pandas as pd
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from tasks.core.errors import ModelError
from tasks.core.files import sha256_of, write_bytes, write_text
from tasks.core.models.backbones import build_module
from tasks.core.models.onnx_network import NETWORK, OnnxNetwork, keep_onnx, read_onnx
from tasks.core.models.spec import CHANNELS, ONNX, ModelSpec
from tasks.core.tables import write_csv

WEIGHTS, SPEC, SEEN = "model.safetensors", "model.json", "seen.csv"
SEEN_COLUMNS: tuple[str, ...] = (
    "image_id",
    "subject_id",
    # train: the base model's training; finetune: that of the fine-tuned group's own pictures;
    # replay: in the same training, a picture of another group, shown again; interpolate, choose.
    "stage",
    "role",  # train (the weights were fitted to it) or validation (it had a part in a choice)
)
FINETUNE, REPLAY = "finetune", "replay"
_VERSION_DIGITS = 12


def save_model(folder: Path, module: nn.Module, spec: ModelSpec, seen: pd.DataFrame) -> ModelSpec:
    """Write a model into a folder; the same weights give the same bytes.

    Parameters
    ----------
    folder
        Made where it is missing.
    module
        The network; its whole state is kept as float32 (and integers) on the CPU. Of an ONNX
        network the file and its YAML are kept as they are.
    spec
        Its description; `version` is set here.
    seen
        One row a picture and training with `SEEN_COLUMNS`; empty where none of these pictures was
        used.

    Returns
    -------
    ModelSpec
        The spec with its version: the first 12 hex digits of the weights file's sha256.
    """
    if isinstance(module, OnnxNetwork):
        keep_onnx(module, folder)
    else:
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in _state(module)}
        write_bytes(folder / WEIGHTS, save_tensors(state))
    digest = sha256_of(_weights_path(folder, spec))
    spec = spec.model_copy(update={"version": digest[:_VERSION_DIGITS]})
    write_text(folder / SPEC, json.dumps(spec.model_dump(mode="json"), indent=2) + "\n")
    write_csv(seen[list(SEEN_COLUMNS)], folder / SEEN)
    return spec


def load_model(folder: Path) -> tuple[nn.Module, ModelSpec]:
    """Read a model back, in evaluation mode on the CPU.

    Raises
    ------
    ModelError
        One line, where a file is missing, damaged or does not belong to the others.
    """
    spec = load_spec(folder)
    path = _weights_path(folder, spec)
    if not path.is_file():
        raise ModelError(f"{path}: no such weights file; train the model again")
    if spec.architecture == ONNX:
        _check_version(path, spec)
        return read_onnx(path)[0].eval(), spec
    try:
        state = load_tensors(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: the weights file is damaged ({error})") from None
    _check_version(path, spec)
    module = build_module(spec.architecture, len(spec.labels), channels(spec), spec.input_size_px)
    try:
        module.load_state_dict(state)
    except RuntimeError:
        raise ModelError(f"{path}: does not fit the network '{spec.architecture}'") from None
    return module.eval(), spec


def _weights_path(folder: Path, spec: ModelSpec) -> Path:
    return folder / (NETWORK if spec.architecture == ONNX else WEIGHTS)


def _check_version(path: Path, spec: ModelSpec) -> None:
    if sha256_of(path)[:_VERSION_DIGITS] != spec.version:
        raise ModelError(
            f"{path}: these are not the weights that {SPEC} describes (version {spec.version});"
            " the file is damaged or was replaced"
        )


def load_spec(folder: Path) -> ModelSpec:
    """Read a model's description alone; raises ModelError with one line."""
    path = folder / SPEC
    try:
        return ModelSpec.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"{path}: no model here; run `affectgap run` (or `dvc repro`) first"
        ) from None
    except (ValidationError, UnicodeDecodeError, OSError) as error:
        raise ModelError(f"{path}: is no model description ({_first_line(error)})") from None


def load_seen(folder: Path) -> pd.DataFrame:
    """Read which pictures had a part in a model; a table of text with `SEEN_COLUMNS`."""
    path = folder / SEEN
    try:
        seen = pd.read_csv(path, dtype="str", keep_default_na=False)
        return seen[list(SEEN_COLUMNS)]
    except FileNotFoundError:
        raise ModelError(f"{path}: missing; what the model has seen is unknown") from None
    except (KeyError, ValueError) as error:
        raise ModelError(f"{path}: is no table of seen pictures ({_first_line(error)})") from None


def no_pictures_seen() -> pd.DataFrame:
    """Make the table of a model that has seen none of these pictures."""
    return pd.DataFrame(columns=list(SEEN_COLUMNS), dtype="str")


def channels(spec: ModelSpec) -> int:
    """Return the number of channels of the model's input."""
    return CHANNELS[spec.colour]


def _state(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    return sorted(module.state_dict().items())


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
