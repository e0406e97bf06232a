"""What a recogniser expects and answers; kept as `model.json` beside its weights."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from tasks.core.labels import EMOTIONS
from tasks.core.params import Section

ONNX = "onnx"  # the architecture of what only onnxruntime can run
CHANNELS: Mapping[str, int] = {"rgb": 3, "bgr": 3, "grey": 1}


class ModelSpec(Section):
    """The description without which weights are useless.

    Attributes
    ----------
    architecture
        A name that `build_module` knows, or "onnx".
    labels
        Emotions in the order of the module's outputs.
    input_size_px
        Width and height of the module's input.
    colour
        Channels of the input in their order: three (rgb, bgr) or one (grey).
    mean, std
        One value a channel, in that order; the input is `(pixel / 255 - mean) / std`.
    version
        What predictions name as the model's version (first 12 hex digits of the weights' sha256).
    source
        Where the weights come from: "trained here", or a name, address and licence.
    """

    architecture: str
    labels: tuple[str, ...]
    input_size_px: Annotated[int, Field(ge=1, le=2048)]
    colour: Literal["rgb", "bgr", "grey"]
    mean: tuple[Annotated[float, Field(allow_inf_nan=False)], ...]
    std: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...]
    version: str
    source: str

    @model_validator(mode="after")
    def _fits(self) -> "ModelSpec":
        foreign = [label for label in self.labels if label not in EMOTIONS]
        if foreign or not self.labels or len({*self.labels}) < len(self.labels):
            raise ValueError(f"labels: must be some of {', '.join(EMOTIONS)}, each once")
        if {len(self.mean), len(self.std)} != {CHANNELS[self.colour]}:
            raise ValueError(
                f"mean, std: must have {CHANNELS[self.colour]} values for colour {self.colour}"
            )
        return self


def can_train(spec: ModelSpec) -> bool:
    """Tell whether a model's weights can be trained on; those in an ONNX file cannot."""
    return spec.architecture != ONNX
