"""Networks of the library timm by their names there, such as `timm/mobilenetv3_small_100`.

R. Wightman, PyTorch Image Models, https://github.com/huggingface/pytorch-image-models. Nothing is
downloaded here; `imagenet.py` finds the trained weights of such a network.
"""

from difflib import get_close_matches
from typing import Any

import torch
from torch import nn

from tasks.core.errors import ModelError
from tasks.core.text import one_line

PREFIX = "timm/"
State = dict[str, torch.Tensor]


def build_timm(
    architecture: str,
    n_classes: int,
    channels: int,
    input_size_px: int | None,
    trained: State | None = None,
) -> nn.Module:
    """Build one of timm's networks.

    Parameters
    ----------
    architecture
        `timm/` and timm's name, with or without the tag of its trained weights.
    input_size_px
        Input size, for networks built for one size such as vision transformers; None: the
        published size.
    trained
        Weights as timm publishes them, used for all but the last layer. None: random.

    Raises
    ------
    ModelError
        For a name unknown to timm (with close ones), a size that the network does not accept,
        or weights that do not fit.
    """
    import timm  # slow to import

    config = timm_config(architecture)
    options: dict[str, Any] = {}
    if input_size_px is not None and config.fixed_input_size:
        options["img_size"] = input_size_px
    if trained is not None:
        options["pretrained_cfg_overlay"] = {"state_dict": trained}
    size_px = input_size_px or config.input_size[-1]
    try:
        network: nn.Module = timm.create_model(
            architecture.removeprefix(PREFIX),
            pretrained=trained is not None,
            num_classes=n_classes,
            in_chans=channels,
            **options,
        )
        if config.fixed_input_size:  # some reject a size only in the forward pass
            with torch.no_grad():
                network.eval()(torch.zeros(1, channels, size_px, size_px))
    except Exception as error:  # noqa: BLE001 - each network raises its own errors
        reason = one_line(error, 120)
        raise ModelError(f"{architecture}: cannot be built for {size_px} px ({reason})") from None
    return network.train()


def timm_config(architecture: str) -> Any:
    """Return timm's configuration of a network; raise ModelError for an unknown name."""
    import timm

    architecture = one_line(architecture, 120)
    name, _, tag = architecture.removeprefix(PREFIX).partition(".")
    known = timm.list_models()  # without deprecated names
    if name not in known:
        near = get_close_matches(name, known, n=5, cutoff=0.5)
        hint = f"near are {', '.join(near)}" if near else "see timm.list_models()"
        raise ModelError(f"{architecture}: timm has no network '{name}'; {hint}")
    try:
        return timm.get_pretrained_cfg(f"{name}.{tag}" if tag else name, allow_unregistered=False)
    except RuntimeError:
        tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{name}.*")]
        raise ModelError(
            f"{architecture}: timm's '{name}' has no weights '{tag}'; it has {', '.join(tags)}"
        ) from None
