"""Published emotion classifiers by name: their weights and input conventions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from tasks.core.errors import ModelError
from tasks.core.files import sha256_of
from tasks.core.models.backbones import build_module
from tasks.core.models.checkpoint import channels
from tasks.core.models.spec import ModelSpec
from tasks.core.models.tensors_file import assert_finite
from tasks.train.pretrained.keras_file import State
from tasks.train.pretrained.keras_networks import read_mini_xception, read_mobilenet
from tasks.train.pretrained.weights import WEIGHTS, weights_file

# Subtracted from channels 0, 1, 2 of the RGB array. Other networks use them as the means of blue,
# green and red, but the authors of mobilenet_7 subtract them in this order.
_HSEMOTION_MEANS = (103.939, 116.779, 123.68)


@dataclass(frozen=True)
class Pretrained:
    """A published model.

    Attributes
    ----------
    file
        Name of its file; a key of `WEIGHTS`.
    read
        Returns the architecture's full name and the state from the file.
    spec
        Its description, without a version.
    box_margin
        Crop margin in training as a share of the face box's side, per side; 0 is a tight box.
    """

    file: str
    read: Callable[[Path], tuple[str, State]]
    spec: ModelSpec
    box_margin: float


PRETRAINED: Mapping[str, Pretrained] = {
    "fer2013/mini_xception": Pretrained(
        file="fer2013_mini_XCEPTION.102-0.66.hdf5",
        read=read_mini_xception,
        spec=ModelSpec(
            architecture="mini_xception",
            labels=("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral"),
            input_size_px=64,
            color="gray",
            mean=(0.5,),  # (pixel / 255 - 0.5) * 2
            std=(0.5,),
            version="",
            source=(
                "fer2013/mini_xception: trained on FER2013 by O. Arriaga et al. "
                "(arXiv 1710.07557), github.com/oarriaga/face_classification, MIT licence"
            ),
        ),
        box_margin=0.0,
    ),
    "hsemotion/mobilenet_7": Pretrained(
        file="mobilenet_7.h5",
        read=read_mobilenet,
        spec=ModelSpec(
            architecture="mobilenet_v1",
            labels=("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"),
            input_size_px=224,
            color="rgb",
            mean=tuple(mean / 255 for mean in _HSEMOTION_MEANS),  # pixel - mean, not scaled to 1
            std=(1 / 255,) * 3,
            version="",
            source=(
                "hsemotion/mobilenet_7: MobileNet v1 trained on VGGFace2, then AffectNet, by "
                "A. Savchenko (arXiv 2103.17107), github.com/av-savchenko/face-emotion-"
                "recognition, Apache-2.0 licence"
            ),
        ),
        box_margin=0.0,
    ),
}


def load_pretrained(name: str, root: Path) -> tuple[nn.Module, ModelSpec]:
    """Find (or download) a pre-trained model's weights and build it in evaluation mode.

    If the file's sha256 was recorded on first use and is not known to this code, the spec's source
    names it. `root` is the project's folder, which holds the weights.

    Raises
    ------
    ModelError
        For an unknown name or a damaged file.
    DownloadError
        If the weights are neither on disk nor available; the text says where to put them.
    """
    if name not in PRETRAINED:
        raise ModelError(
            f"there is no pre-trained model '{name}'; the known ones are {', '.join(PRETRAINED)}"
        )
    entry = PRETRAINED[name]
    path = weights_file(entry.file, root)
    architecture, state = entry.read(path)
    module = build_module(architecture, len(entry.spec.labels), channels(entry.spec))
    assert_finite(state, path)
    try:
        module.load_state_dict(state)
    except RuntimeError:
        raise ModelError(f"{path}: does not fit the network of '{name}'") from None
    updates = {"architecture": architecture}
    if WEIGHTS[entry.file].sha256 is None:
        updates["source"] = f"{entry.spec.source}; {entry.file} with sha256 {sha256_of(path)}"
    return module.eval(), entry.spec.model_copy(update=updates)
