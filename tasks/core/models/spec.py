"""What a recogniser expects and answers; kept as `model.json` beside its weights."""

from typing import Literal

from tasks.core.params import Section


class ModelSpec(Section):
    """The description without which weights are useless.

    Attributes
    ----------
    architecture
        A name that `build_module` knows.
    labels
        Emotions in the order of the module's outputs.
    input_size_px
        Width and height of the module's input.
    colour
        Channels of the input: three (rgb) or one (grey).
    mean, std
        One value a channel; the input is `(pixel / 255 - mean) / std`.
    version
        What predictions name as the model's version (first 12 hex digits of the weights' sha256).
    source
        Where the weights come from: "trained here", or a name, address and licence.
    """

    architecture: str
    labels: tuple[str, ...]
    input_size_px: int
    colour: Literal["rgb", "grey"]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    version: str
    source: str
