"""Initial weights trained on ImageNet, except for the last layer.

Only safetensors files from timm are read, since torchvision publishes its weights as pickles. timm
also hosts the weights of torchvision's ResNets (tags `tv_in1k`, `tv2_in1k`), with the same names,
so they fit torchvision's modules directly.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tasks.core.errors import ModelError
from tasks.core.files import sha256_of
from tasks.core.models.backbones import TIMM_NAMES, build_module
from tasks.core.models.tensors_file import assert_finite, read_tensors
from tasks.core.models.timm_model import PREFIX, build_timm, timm_config
from tasks.train.pretrained.transfer import InitialWeights, load_backbone
from tasks.train.pretrained.weights import WeightsFile, find_weights

_TORCHVISION: Mapping[str, str] = {  # backbone to the name of the same weights in timm
    "resnet18": "resnet18.tv_in1k",
    "resnet50": "resnet50.tv2_in1k",
}
_ELSEWHERE: Mapping[str, str] = {  # similar networks with weights that are not pickles
    "mobilenet_v1": "start: hsemotion/mobilenet_7, or timm/mobilenetv1_100",
    "mobilenet_v3_small": "timm/mobilenetv3_small_100",
}


def init_from_imagenet(
    backbone: str, n_classes: int, channels: int, input_size_px: int, root: Path
) -> InitialWeights:
    """Build a backbone with ImageNet weights and a randomly initialized last layer.

    Parameters
    ----------
    backbone
        A key of `TIMM_NAMES`, `resnet18`, `resnet50` or `timm/<name>`. The tag of a timm name
        selects the weights; most were trained on ImageNet, and the source says on what.
    channels
        3 (rgb) or 1 (gray: the first layer's weights are summed over the colors, and the
        normalization is averaged).

    Raises
    ------
    ModelError
        For a backbone without such weights, or a file that does not fit.
    DownloadError
        If the file is neither on disk nor available; the text says where to put it.
    """
    file, normalization = _published(backbone)
    path = find_weights(file, root)
    state = read_tensors(path)
    assert_finite(state, path)
    if backbone in _TORCHVISION:
        network = build_module(backbone, n_classes, channels, input_size_px)
        module = load_backbone(network, state, path)
    else:
        name = TIMM_NAMES.get(backbone, backbone)
        module = build_timm(name, n_classes, channels, input_size_px, state)
    source = f"{file.citation}, {file.licence}, file's sha256 {sha256_of(path)}"
    mean, std = (_for_channels(values, channels) for values in normalization)
    return InitialWeights(module, mean, std, source)


def _published(backbone: str) -> tuple[WeightsFile, tuple[Sequence[float], Sequence[float]]]:
    """Return a backbone's file, and the input mean and standard deviation of its weights."""
    if not backbone.startswith(PREFIX) and backbone not in (*_TORCHVISION, *TIMM_NAMES):
        known = ", ".join([*_TORCHVISION, *TIMM_NAMES, f"{PREFIX}<name>"])
        other = _ELSEWHERE.get(backbone)
        raise ModelError(
            f"train.init: imagenet: no ImageNet weights without a pickle are known for "
            f"'{backbone}'; use {f'{other}, or ' if other else ''}one of {known}, or start: random"
        )
    name = TIMM_NAMES.get(backbone, backbone)
    config = timm_config(f"{PREFIX}{_TORCHVISION[name]}" if name in _TORCHVISION else name)
    if not config.hf_hub_id or config.hf_hub_filename:
        raise ModelError(f"train.init: imagenet: timm has no safetensors weights for {backbone}")
    tagged = f"{config.architecture}.{config.tag}" if config.tag else config.architecture
    file = WeightsFile(
        name=f"{tagged}.safetensors",
        sha256=None,
        address=f"https://huggingface.co/{config.hf_hub_id}/resolve/main/model.safetensors",
        licence=str(config.license),
        citation=f"timm {tagged}",
    )
    return file, (config.mean, config.std)


def _for_channels(values: Sequence[float], channels: int) -> tuple[float, ...]:
    return (sum(values) / len(values),) if channels == 1 else tuple(values)
