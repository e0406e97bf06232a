"""Model folders: the weights, `model.json` (the spec), `seen.csv`, or `skipped.json`.

Weights are `model.safetensors`, or `model.onnx` with `model.yaml`; never pickles. `seen.csv` lists
every image that influenced the weights or their selection, so that an evaluation knows what is held
out.

`skipped.json` stands where a run did not make a model, and says why. A stage has the same outputs
in every run, so that what was left out is said and not missing.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from pydantic import ValidationError
from safetensors.torch import save as save_tensors
from torch import nn

from tasks.core.errors import ModelError
from tasks.core.files import sha256_of, write_bytes, write_text
from tasks.core.models.backbones import TIMM_NAMES, build_module
from tasks.core.models.mobilenet_v1 import is_mobilenet_name
from tasks.core.models.onnx_model import NETWORK, OnnxNetwork, read_onnx, save_onnx
from tasks.core.models.spec import CHANNELS, ONNX, ModelSpec, validation_faults
from tasks.core.models.tensors_file import Declared, assert_finite, read_header, read_tensors
from tasks.core.models.timm_model import PREFIX, timm_config
from tasks.core.tables import current_subjects, read_csv, write_csv
from tasks.core.text import one_line

WEIGHTS, SPEC, SEEN = "model.safetensors", "model.json", "seen.csv"
SEEN_COLUMNS: tuple[str, ...] = (
    "image_id",
    "subject_id",
    # train: the base model's training; finetune: training on the fine-tuned group;
    # replay: a replayed image of another group in the same training; interpolate, choose.
    "stage",
    "role",  # train (the weights were fitted to it) or validation (it had a part in a choice)
)
FINETUNE, REPLAY = "finetune", "replay"
_VERSION_DIGITS = 12
_MAX_SPEC_BYTES = 1 << 20
SKIPPED = "skipped.json"


def save_model(folder: Path, module: nn.Module, spec: ModelSpec, seen: pd.DataFrame) -> ModelSpec:
    """Write a model into a folder and return the spec with its version.

    The version is the first 12 hex digits of the weights file's sha256; the same weights give the
    same bytes. The network's state is stored as float32 (and integers). An ONNX network's file and
    YAML are copied unchanged. `seen` has one row per image and training, with `SEEN_COLUMNS`.
    """
    if isinstance(module, OnnxNetwork):
        save_onnx(module, folder)
    else:
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in _state(module)}
        write_bytes(folder / WEIGHTS, save_tensors(state))
    digest = sha256_of(_weights_path(folder, spec))
    spec = spec.model_copy(update={"version": digest[:_VERSION_DIGITS]})
    write_text(folder / SPEC, json.dumps(spec.model_dump(mode="json"), indent=2) + "\n")
    write_csv(seen[list(SEEN_COLUMNS)], folder / SEEN)
    return spec


def load_model(folder: Path) -> tuple[nn.Module, ModelSpec]:
    """Load a model in evaluation mode on the CPU.

    Raises ModelError if a file is missing, damaged or does not match the others.
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
    """Compare a file's header with a network's state, if given."""
    if network is None:
        return
    wanted = {
        name: Declared(tuple(tensor.shape), tensor.is_floating_point())
        for name, tensor in network.items()
    }
    if wanted != declared:
        raise _does_not_fit(path, spec)


def _state_without_memory(spec: ModelSpec) -> Mapping[str, torch.Tensor] | None:
    """Return the network's state on torch's "meta" device.

    A description may name a network of any size. Since the file must contain all weights, comparing
    shapes first rejects oversized networks before they take memory. None for networks of fixed
    size, and for timm networks that compute with numbers while they are built.
    """
    architecture = TIMM_NAMES.get(spec.architecture, spec.architecture)
    if architecture.startswith(PREFIX):
        timm_config(architecture)  # imports timm, whose module-level tensors must not be on "meta"
    elif not is_mobilenet_name(architecture):
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
    """Read only a model's description; raise ModelError with one line."""
    path = folder / SPEC
    if not path.is_file():
        raise ModelError(f"{path}: no model here; run `affectgap run` (or `dvc repro`) first")
    try:
        if path.stat().st_size > _MAX_SPEC_BYTES:
            raise ValueError(f"it has more than {_MAX_SPEC_BYTES:,} bytes")
        return ModelSpec.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        reason = one_line(validation_faults(error), 300)
        raise ModelError(f"{path}: is not a valid model description ({reason})") from None
    except (ValueError, OSError) as error:
        raise ModelError(f"{path}: is not a valid model description ({one_line(error)})") from None


def load_seen(folder: Path) -> pd.DataFrame:
    """Read the images that influenced a model; a table of text with `SEEN_COLUMNS`.

    Subjects have their current names (`current_subjects`), also for older models.
    """
    path = folder / SEEN
    try:
        seen = read_csv(path, dtype="str", keep_default_na=False)
        return current_subjects(seen[list(SEEN_COLUMNS)])
    except FileNotFoundError:
        raise ModelError(f"{path}: missing; what the model has seen is unknown") from None
    except (KeyError, ValueError, OSError) as error:
        raise ModelError(
            f"{path}: is not a valid table of seen pictures ({one_line(error)})"
        ) from None


def empty_seen_table() -> pd.DataFrame:
    """Return an empty table of seen images."""
    return pd.DataFrame(columns=list(SEEN_COLUMNS), dtype="str")


def channels(spec: ModelSpec) -> int:
    """Return the number of channels of the model's input."""
    return CHANNELS[spec.color]


def _state(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    return sorted(module.state_dict().items())


@dataclass(frozen=True)
class Skipped:
    """Why there is no model, and the labels that it would have had."""

    reason: str
    labels: tuple[str, ...]


def write_skipped(folder: Path, skipped: Skipped) -> None:
    """Write `skipped.json` as the only file of a folder; the folder is made where it is missing."""
    content = {"reason": skipped.reason, "labels": list(skipped.labels)}
    for stale in folder.iterdir() if folder.is_dir() else ():
        stale.unlink()
    write_text(folder / SKIPPED, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_skipped(folder: Path) -> Skipped | None:
    """Read why a model was not made; None where it was (or where nothing is there at all).

    Raises
    ------
    ModelError
        Where the file is damaged.
    """
    path = folder / SKIPPED
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Skipped(str(content["reason"]), tuple(content["labels"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ModelError(f"{path}: is damaged; remove the folder and run again") from None
