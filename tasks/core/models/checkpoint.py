"""A model on disk: its weights, `model.json` (its spec) and `seen.csv`.

Weights are `model.safetensors`, or `model.onnx` with `model.yaml`; never pickles. `seen.csv` names
every picture that had a part in the weights or in choosing them, so that an evaluation can tell
what is held out.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import torch
from pydantic import ValidationError
from safetensors.torch import save as save_tensors
from torch import nn

from tasks.core.errors import ModelError
from tasks.core.files import sha256_of, write_bytes, write_text
from tasks.core.models.backbones import TIMM_NAMES, build_module
from tasks.core.models.mobilenet_v1 import is_mobilenet
from tasks.core.models.onnx_network import NETWORK, OnnxNetwork, keep_onnx, read_onnx
from tasks.core.models.spec import CHANNELS, ONNX, ModelSpec
from tasks.core.models.tensors_file import (
    Declared,
    assert_finite,
    read_header,
    read_tensors,
)
from tasks.core.models.timm_network import PREFIX, timm_config
from tasks.core.tables import current_subjects, read_csv, write_csv
from tasks.core.text import one_line

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
_MAX_SPEC_BYTES = 1 << 20


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
    if spec.architecture == ONNX:
        if not path.is_file():
            raise ModelError(f"{path}: no such weights file; train the model again")
        _check_version(path, spec)
        return read_onnx(path)[0].eval(), spec
    declared = read_header(path)
    _assert_fits(path, spec, declared, _state_without_memory(spec))
    _check_version(path, spec)
    module = build_module(spec.architecture, len(spec.labels), channels(spec), spec.input_size_px)
    _assert_fits(path, spec, declared, module.state_dict())
    state = read_tensors(path)
    assert_finite(state, path)
    try:
        module.load_state_dict(state)
    except RuntimeError:
        raise _does_not_fit(path, spec) from None
    return module.eval(), spec


def _assert_fits(
    path: Path,
    spec: ModelSpec,
    declared: Mapping[str, Declared],
    network: Mapping[str, torch.Tensor] | None,
) -> None:
    """Compare a file's header with a network's state, if there is one."""
    if network is None:
        return
    wanted = {
        name: Declared(tuple(tensor.shape), tensor.is_floating_point())
        for name, tensor in network.items()
    }
    if wanted != declared:
        raise _does_not_fit(path, spec)


def _state_without_memory(spec: ModelSpec) -> Mapping[str, torch.Tensor] | None:
    """Build the state of a network on torch's device for shapes alone.

    A description may name a network of any size; as its weights must all be in the file, the file
    bounds it, and what does not fit is refused before it takes memory. None for networks of one
    size each, and for those of timm that compute with numbers while they are built.
    """
    architecture = TIMM_NAMES.get(spec.architecture, spec.architecture)
    if architecture.startswith(PREFIX):
        timm_config(architecture)  # imports timm, whose own tensors must not be on that device
    elif not is_mobilenet(architecture):
        return None
    try:
        with torch.device("meta"):
            return build_module(
                architecture, len(spec.labels), channels(spec), spec.input_size_px
            ).state_dict()
    except Exception as error:  # noqa: BLE001 - torch has several for sizes that it cannot hold
        if architecture.startswith(PREFIX):
            return None
        raise ModelError(
            f"no network '{one_line(architecture, 80)}' can be built ({one_line(error)})"
        ) from None


def _does_not_fit(path: Path, spec: ModelSpec) -> ModelError:
    return ModelError(f"{path}: does not fit the network '{one_line(spec.architecture)}'")


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
    if not path.is_file():
        raise ModelError(f"{path}: no model here; run `affectgap run` (or `dvc repro`) first")
    try:
        if path.stat().st_size > _MAX_SPEC_BYTES:
            raise ValueError(f"it has more than {_MAX_SPEC_BYTES:,} bytes")
        return ModelSpec.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        faults = "; ".join(
            ": ".join(filter(None, (".".join(map(str, fault["loc"])), fault["msg"])))
            for fault in error.errors()
        )
        raise ModelError(f"{path}: is no model description ({one_line(faults, 300)})") from None
    except (ValueError, OSError) as error:
        raise ModelError(f"{path}: is no model description ({one_line(error)})") from None


def load_seen(folder: Path) -> pd.DataFrame:
    """Read which pictures had a part in a model; a table of text with `SEEN_COLUMNS`.

    People are named as today (`current_subjects`), also in the file of an older model.
    """
    path = folder / SEEN
    try:
        seen = read_csv(path, dtype="str", keep_default_na=False)
        return current_subjects(seen[list(SEEN_COLUMNS)])
    except FileNotFoundError:
        raise ModelError(f"{path}: missing; what the model has seen is unknown") from None
    except (KeyError, ValueError, OSError) as error:
        raise ModelError(f"{path}: is no table of seen pictures ({one_line(error)})") from None


def no_pictures_seen() -> pd.DataFrame:
    """Make the table of a model that has seen none of these pictures."""
    return pd.DataFrame(columns=list(SEEN_COLUMNS), dtype="str")


def channels(spec: ModelSpec) -> int:
    """Return the number of channels of the model's input."""
    return CHANNELS[spec.colour]


def _state(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    return sorted(module.state_dict().items())
