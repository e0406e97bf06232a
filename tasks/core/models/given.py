"""A model that is there already, by name, as a folder, as a Keras file or as an ONNX file.

`train.weights` takes it as it is, `train.start` trains it on with a fresh head.
"""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from torch import nn

from tasks.core.errors import ModelError
from tasks.core.models.backbones import TIMM_NAMES, build_module
from tasks.core.models.checkpoint import SPEC, channels, load_model, load_seen, no_pictures_seen
from tasks.core.models.keras_mobilenet import read_mobilenet
from tasks.core.models.mobilenet_v1 import is_mobilenet
from tasks.core.models.onnx_network import read_description, read_onnx
from tasks.core.models.pretrained import PRETRAINED, load_pretrained
from tasks.core.models.recogniser import probe
from tasks.core.models.spec import ModelSpec, can_train
from tasks.core.models.start import with_body
from tasks.core.models.tensors_file import assert_finite
from tasks.core.paths import CROP_SETTINGS
from tasks.core.text import one_line

_WEIGHTS, _START = "train.weights", "train.start"
_KERAS = (".h5", ".hdf5")


@dataclass(frozen=True)
class BoxMargin:
    """How much around the face a model was trained on.

    Attributes
    ----------
    share
        Share of the face box's side on each side; None where nothing says it.
    where
        The key or file that says it, for messages.
    binding
        Whether another margin is a mistake; else it is worth a note.
    """

    share: float | None
    where: str
    binding: bool

    def compare(self, crop_settings: Path) -> str:
        """Compare with how this run's crops were cut.

        Parameters
        ----------
        crop_settings
            The crops' `crop.json`.

        Returns
        -------
        str
            A note where they differ and may; "" where they agree or one is not known.

        Raises
        ------
        ModelError
            One line that names both keys, where they differ and must not.
        """
        ours = crop_margin(crop_settings)
        if self.share is None or ours is None or abs(ours - self.share) < 1e-6:
            return ""
        difference = f"crop.margin is {ours:g}, but {self.where} is {self.share:g}"
        if self.binding:
            raise ModelError(
                f"{_WEIGHTS}: {difference}; the model would be shown another part of the face than "
                f"in training: set crop.margin to {self.share:g}"
            )
        return f"{difference}: it is shown more or less of the face than in training"


@dataclass(frozen=True)
class Given:
    """A model as it was given: its network, its spec, whom it has seen and how it was cropped."""

    module: nn.Module
    spec: ModelSpec
    seen: pd.DataFrame
    margin: BoxMargin


def load_given(weights: str, root: Path, key: str = _WEIGHTS) -> Given:
    """Load what `train.weights` (or another key) names.

    Parameters
    ----------
    weights
        A name in `PRETRAINED`, a folder with a model of this project, or an ONNX file or a Keras
        file (of MobileNet v1) with its YAML beside it; paths are absolute or relative to the
        project.
    root
        The project's folder.
    key
        The params key that names it, for messages.

    Raises
    ------
    ModelError, DownloadError
        One line, for something else or something damaged; see `load_pretrained`, `load_model`,
        `read_onnx` and `read_mobilenet`.
    """
    if weights in PRETRAINED:
        module, spec = load_pretrained(weights, root)
        probe(module, spec, weights)
        tight = BoxMargin(PRETRAINED[weights].box_margin, f"that of {weights}", binding=False)
        return Given(module, spec, no_pictures_seen(), tight)
    path = root / weights  # an absolute path stays as it is
    if path.suffix == ".onnx":
        network, spec = read_onnx(path)
        return Given(network, spec, no_pictures_seen(), _described_margin(path))
    if path.suffix in _KERAS:
        module, spec = _from_keras(path)
        probe(module, spec, path)
        return Given(module, spec, no_pictures_seen(), _described_margin(path))
    if (path / SPEC).is_file():
        module, spec = load_model(path)
        probe(module, spec, path)
        cut = path / CROP_SETTINGS
        margin = BoxMargin(crop_margin(cut), f"margin of {cut}", binding=True)
        return Given(module, spec, load_seen(path), margin)
    neither = "neither random nor imagenet, " if key == _START else ""
    raise ModelError(
        f"{key}: '{weights}' is {neither}no pre-trained model ({', '.join(PRETRAINED)}), no folder "
        f"with a {SPEC}, no .onnx and no .h5 file"
    )


def given_start(
    start: str, backbone: str, n_classes: int, colour: str, input_size_px: int, root: Path
) -> Given:
    """Load what `train.start` names, with a head of random weights, to be trained on.

    Parameters
    ----------
    start
        As for `load_given`; an ONNX file cannot be trained on.
    backbone, colour
        What params say: they must be those of the model (`mobilenet_v1` is each of its forms).
    n_classes
        Outputs of the new head.
    input_size_px
        Width and height of the input, which may be another than before.
    root
        The project's folder.

    Returns
    -------
    Given
        The network; the spec that it had, with its labels and its size; what it has seen; and a
        margin that may differ, since the network is trained on.

    Raises
    ------
    ModelError, DownloadError
        One line, where there is no such model, or where it cannot be trained on or is another.
    """
    given = load_given(start, root, _START)
    spec = given.spec
    if not can_train(spec):
        raise ModelError(
            f"{_START}: {start} cannot be trained on: its network is {spec.architecture}"
        )
    if not _is_one(spec.architecture, backbone):
        kind = "mobilenet_v1" if is_mobilenet(spec.architecture) else spec.architecture
        raise ModelError(
            f"{_START}: {start} is {kind}, but train.backbone is {backbone}; set it to {kind}"
        )
    if colour != spec.colour:
        raise ModelError(
            f"{_START}: {start} takes {spec.colour}, but train.colour is {colour}; set it to "
            f"{spec.colour}"
        )
    module = build_module(spec.architecture, n_classes, channels(spec), input_size_px)
    with_body(module, given.module.state_dict(), start)
    return replace(given, module=module, margin=replace(given.margin, binding=False))


def _is_one(architecture: str, backbone: str) -> bool:
    if backbone == "mobilenet_v1" and is_mobilenet(architecture):
        return True
    return TIMM_NAMES.get(architecture, architecture) == TIMM_NAMES.get(backbone, backbone)


def _from_keras(path: Path) -> tuple[nn.Module, ModelSpec]:
    """Build a MobileNet v1 from a Keras file and the YAML beside it."""
    description = read_description(path)
    architecture, state = read_mobilenet(path)
    answers, labels = len(state["head.weight"]), description.emotions
    if answers != len(labels):
        raise ModelError(
            f"{path}: has {answers} outputs, but the YAML beside it names {len(labels)} labels"
        )
    spec = ModelSpec(
        architecture=architecture,
        labels=labels,
        input_size_px=description.input_size_px,
        colour=description.colour,
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
            f"{path}: does not take {spec.colour}, as the YAML beside it says"
        ) from None
    return module.eval(), spec


def _described_margin(path: Path) -> BoxMargin:
    share = read_description(path).box_margin
    return BoxMargin(share, f"box_margin of {path.with_suffix('.yaml')}", binding=True)


def crop_margin(crop_settings: Path) -> float | None:
    """Read the margin from a `crop.json`; None where it has none.

    Raises
    ------
    ModelError
        One line, where the file is missing or damaged.
    """
    try:
        margin = json.loads(crop_settings.read_text(encoding="utf-8")).get("margin")
        share = None if margin is None else float(margin)
        if share is not None and not math.isfinite(share):
            raise ValueError(f"margin: {share}")
        return share
    except FileNotFoundError:
        raise ModelError(f"{crop_settings}: missing; how faces were cut is unknown") from None
    except (ValueError, TypeError, AttributeError, RecursionError, OSError) as error:
        reason = one_line(error)
        raise ModelError(f"{crop_settings}: does not say how faces are cut ({reason})") from None
