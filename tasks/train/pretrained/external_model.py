"""Existing models: loaded by name, from a folder, a Keras file or an ONNX file.

`train.weights` uses such a model unchanged; `train.init` trains it further with a fresh head.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from torch import nn

from tasks.core.errors import ModelError
from tasks.core.imaging.shards import crop_margin
from tasks.core.models.backbones import TIMM_NAMES, build_module
from tasks.core.models.checkpoint import SPEC, channels, empty_seen_table, load_model, load_seen
from tasks.core.models.mobilenet_v1 import is_mobilenet_name
from tasks.core.models.onnx_model import read_description, read_onnx
from tasks.core.models.predictor import probe
from tasks.core.models.spec import ModelSpec, can_train
from tasks.core.models.tensors_file import assert_finite
from tasks.core.paths import CROP_SETTINGS
from tasks.train.pretrained.catalog import PRETRAINED, load_pretrained
from tasks.train.pretrained.keras_networks import read_mobilenet
from tasks.train.pretrained.transfer import load_backbone

_WEIGHTS, _START = "train.weights", "train.init"
_KERAS = (".h5", ".hdf5")


@dataclass(frozen=True)
class CropMargin:
    """Crop margin that a model was trained with.

    Attributes
    ----------
    share
        Margin on each side as a share of the face box's side; None if unknown.
    where
        The key or file that states it, for messages.
    binding
        Whether a different margin is an error; else it is only noted.
    """

    share: float | None
    where: str
    binding: bool

    def compare(self, crop_settings: Path) -> str:
        """Compare with the margin of this run's crops.

        Returns a note if they differ, or "". Raises ModelError instead of a note if the margin is
        binding.
        """
        run_margin = crop_margin(crop_settings)
        if self.share is None or run_margin is None or abs(run_margin - self.share) < 1e-6:
            return ""
        difference = f"crop.margin is {run_margin:g}, but {self.where} is {self.share:g}"
        if self.binding:
            raise ModelError(
                f"{_WEIGHTS}: {difference}; the model would see a different part of the face than "
                f"in training: set crop.margin to {self.share:g}"
            )
        return f"{difference}: the model sees more or less of the face than in training"


@dataclass(frozen=True)
class ExternalModel:
    """An external model: its network, its spec, the images it has seen and its crop margin."""

    module: nn.Module
    spec: ModelSpec
    seen: pd.DataFrame
    margin: CropMargin


def load_external_model(weights: str, root: Path, key: str = _WEIGHTS) -> ExternalModel:
    """Load the model that `train.weights` (or another key) names.

    Parameters
    ----------
    weights
        A name in `PRETRAINED`, a model folder of this project, or an ONNX file or a Keras file
        (of MobileNet v1) with its YAML beside it. Paths are absolute or relative to `root`.
    key
        The params key that names it, for messages.

    Raises
    ------
    ModelError, DownloadError
        For anything else or a damaged file; see `load_pretrained`, `load_model`, `read_onnx`
        and `read_mobilenet`.
    """
    if weights in PRETRAINED:
        module, spec = load_pretrained(weights, root)
        probe(module, spec, weights)
        margin = CropMargin(PRETRAINED[weights].box_margin, f"that of {weights}", binding=False)
        return ExternalModel(module, spec, empty_seen_table(), margin)
    path = root / weights  # an absolute path stays as it is
    if path.suffix == ".onnx":
        network, spec = read_onnx(path)
        return ExternalModel(network, spec, empty_seen_table(), _described_margin(path))
    if path.suffix in _KERAS:
        module, spec = _from_keras(path)
        probe(module, spec, path)
        return ExternalModel(module, spec, empty_seen_table(), _described_margin(path))
    if (path / SPEC).is_file():
        module, spec = load_model(path)
        probe(module, spec, path)
        crop_settings = path / CROP_SETTINGS
        margin = CropMargin(crop_margin(crop_settings), f"margin of {crop_settings}", binding=True)
        return ExternalModel(module, spec, load_seen(path), margin)
    alternatives = "neither random nor imagenet, " if key == _START else ""
    raise ModelError(
        f"{key}: '{weights}' is {alternatives}no pre-trained model "
        f"({', '.join(PRETRAINED)}), no folder "
        f"with a {SPEC}, no .onnx and no .h5 file"
    )


def init_from_external_model(
    start: str, backbone: str, n_classes: int, color: str, input_size_px: int, root: Path
) -> ExternalModel:
    """Load the model that `train.init` names, with a randomly initialized head.

    Architecture and color must match `backbone` and `color` (`mobilenet_v1` stands for each of its
    variants); the input size may change. The result keeps the model's spec with its labels and
    size. Its margin is not binding, since the network is trained further. Raises ModelError or
    DownloadError if the model does not exist, cannot be trained or does not match.
    """
    external = load_external_model(start, root, _START)
    spec = external.spec
    if not can_train(spec):
        raise ModelError(
            f"{_START}: {start} cannot be trained on: its network is {spec.architecture}"
        )
    if not _same_architecture(spec.architecture, backbone):
        kind = "mobilenet_v1" if is_mobilenet_name(spec.architecture) else spec.architecture
        raise ModelError(
            f"{_START}: {start} is {kind}, but train.backbone is {backbone}; set it to {kind}"
        )
    if color != spec.color:
        raise ModelError(
            f"{_START}: {start} takes {spec.color}, but train.color is {color}; set it to "
            f"{spec.color}"
        )
    module = build_module(spec.architecture, n_classes, channels(spec), input_size_px)
    load_backbone(module, external.module.state_dict(), start)
    return replace(external, module=module, margin=replace(external.margin, binding=False))


def _same_architecture(architecture: str, backbone: str) -> bool:
    if backbone == "mobilenet_v1" and is_mobilenet_name(architecture):
        return True
    return TIMM_NAMES.get(architecture, architecture) == TIMM_NAMES.get(backbone, backbone)


def _from_keras(path: Path) -> tuple[nn.Module, ModelSpec]:
    """Build a MobileNet v1 from a Keras file and the YAML beside it."""
    description = read_description(path)
    architecture, state = read_mobilenet(path)
    n_outputs, labels = len(state["head.weight"]), description.emotions
    if n_outputs != len(labels):
        raise ModelError(
            f"{path}: has {n_outputs} outputs, but the YAML beside it names {len(labels)} labels"
        )
    spec = ModelSpec(
        architecture=architecture,
        labels=labels,
        input_size_px=description.input_size_px,
        color=description.color,
        mean=description.mean,
        std=description.std,
        version="",
        source=description.source,
    )
    assert_finite(state, path)
    module = build_module(architecture, len(labels), channels(spec))
    try:
        module.load_state_dict(state)
    except RuntimeError:
        raise ModelError(
            f"{path}: does not take {spec.color}, as the YAML beside it says"
        ) from None
    return module.eval(), spec


def _described_margin(path: Path) -> CropMargin:
    share = read_description(path).box_margin
    return CropMargin(share, f"box_margin of {path.with_suffix('.yaml')}", binding=True)
