"""Pre-trained recognisers by name: where their weights are and how their input must look."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from tasks.core.errors import ModelError
from tasks.core.models.backbones import build_module
from tasks.core.models.checkpoint import channels
from tasks.core.models.keras_file import read_mini_xception
from tasks.core.models.spec import ModelSpec
from tasks.core.weights import weights_file


@dataclass(frozen=True)
class Pretrained:
    """A published model: its file, how the file is read, and its spec (without a version)."""

    file: str
    read: Callable[[Path], dict[str, torch.Tensor]]
    spec: ModelSpec


PRETRAINED: Mapping[str, Pretrained] = {
    "fer2013/mini_xception": Pretrained(
        file="fer2013_mini_XCEPTION.102-0.66.hdf5",
        read=read_mini_xception,
        spec=ModelSpec(
            architecture="mini_xception",
            labels=("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral"),
            input_size_px=64,
            colour="grey",
            mean=(0.5,),  # (pixel / 255 - 0.5) * 2
            std=(0.5,),
            version="",
            source=(
                "fer2013/mini_xception: trained on FER2013 by O. Arriaga et al. "
                "(arXiv 1710.07557), github.com/oarriaga/face_classification, MIT licence"
            ),
        ),
    ),
}


def check_name(name: str) -> None:
    """Raise ModelError with one line that lists the known names, unless `name` is one."""
    if name not in PRETRAINED:
        raise ModelError(
            f"train.weights: there is no pre-trained model '{name}'; "
            f"the known ones are {', '.join(PRETRAINED)}"
        )


def load_pretrained(name: str, root: Path) -> tuple[nn.Module, ModelSpec]:
    """Find (or download) a pre-trained model's weights and build it.

    Parameters
    ----------
    name
        A name in `PRETRAINED`.
    root
        The project's folder, below which weights are kept.

    Raises
    ------
    ModelError
        For an unknown name or a damaged file.
    DownloadError
        Where the weights are neither here nor to be had; the text says where to put them.
    """
    check_name(name)
    entry = PRETRAINED[name]
    module = build_module(entry.spec.architecture, len(entry.spec.labels), channels(entry.spec))
    path = weights_file(entry.file, root)
    try:
        module.load_state_dict(entry.read(path))
    except RuntimeError:
        raise ModelError(f"{path}: does not fit the network of '{name}'") from None
    return module.eval(), entry.spec
