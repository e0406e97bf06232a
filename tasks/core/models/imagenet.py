"""First weights for training: those that others trained on ImageNet, but for the last layer.

Read are safetensors files of the library timm alone, since torchvision publishes its weights as
pickles. timm holds the same weights of torchvision's ResNets (its tags `tv_in1k`, `tv2_in1k`),
with the same names, so that they fit torchvision's modules as they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from tasks.core.errors import ModelError
from tasks.core.files import sha256_of
from tasks.core.models.backbones import build_module
from tasks.core.models.head import head_parameters
from tasks.core.models.timm_network import PREFIX, State, build_timm, timm_config
from tasks.core.weights import WeightsFile, find_weights

_TORCHVISION: Mapping[str, str] = {  # backbone to the name of the same weights in timm
    "resnet18": "resnet18.tv_in1k",
    "resnet50": "resnet50.tv2_in1k",
}
_ELSEWHERE: Mapping[str, str] = {  # near relatives whose weights are no pickle
    "mobilenet_v1": "timm/mobilenetv1_100",
    "mobilenet_v3_small": "timm/mobilenetv3_small_100",
}


@dataclass(frozen=True)
class Start:
    """A network to train on: with which normalisation its weights were trained, and whence."""

    module: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str


def imagenet_start(backbone: str, n_classes: int, input_size_px: int, root: Path) -> Start:
    """Build a backbone with ImageNet weights and a last layer of random ones.

    Parameters
    ----------
    backbone
        `resnet18`, `resnet50` or `timm/<name>`. A timm name's weights are those that timm names
        for it, which a tag chooses; most were trained on ImageNet, and the source says which.
    n_classes
        Outputs.
    input_size_px
        Width and height of the input, in RGB.
    root
        The project's folder; see `find_weights`.

    Raises
    ------
    ModelError
        For a backbone without such weights, or a file that does not fit.
    DownloadError
        Where the file is neither here nor to be had; the text says where to put it.
    """
    if not backbone.startswith(PREFIX) and backbone not in _TORCHVISION:
        known = ", ".join([*_TORCHVISION, f"{PREFIX}<name>"])
        other = _ELSEWHERE.get(backbone)
        raise ModelError(
            f"train.start: imagenet: no ImageNet weights without a pickle are known for "
            f"'{backbone}'; use {f'{other}, or ' if other else ''}one of {known}, or start: random"
        )
    name = f"{PREFIX}{_TORCHVISION.get(backbone, backbone.removeprefix(PREFIX))}"
    config = timm_config(name)
    if not config.hf_hub_id or config.hf_hub_filename:
        raise ModelError(f"train.start: imagenet: timm has no safetensors weights for {backbone}")
    tagged = f"{config.architecture}.{config.tag}" if config.tag else config.architecture
    file = WeightsFile(
        name=f"{tagged}.safetensors",
        sha256=None,
        address=f"https://huggingface.co/{config.hf_hub_id}/resolve/main/model.safetensors",
        licence=str(config.license),
        citation=f"timm {tagged}",
    )
    path = find_weights(file, root)
    state = _read(path)
    if backbone.startswith(PREFIX):
        module = build_timm(backbone, n_classes, 3, input_size_px, state)
    else:
        module = _filled(build_module(backbone, n_classes, 3, input_size_px), state, path)
    source = f"{file.citation}, {file.licence}, file's sha256 {sha256_of(path)}"
    return Start(module, tuple(config.mean), tuple(config.std), source)


def _read(path: Path) -> State:
    try:
        state: State = load_file(path)
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ModelError(f"{path}: is no whole safetensors file ({reason})") from None
    return state


def _filled(module: nn.Module, state: State, path: Path) -> nn.Module:
    """Load everything but the head; raise ModelError where the file is of another network."""
    head = head_parameters(module)
    body = {name: tensor for name, tensor in state.items() if name not in head}
    try:
        missing, foreign = module.load_state_dict(body, strict=False)
    except RuntimeError:
        missing, foreign = ["sizes"], []
    if set(missing) - set(head) or foreign:
        raise ModelError(f"{path}: does not fit the network '{type(module).__name__}'")
    return module
