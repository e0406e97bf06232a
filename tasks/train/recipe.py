"""How a network is trained: the params that `train` and `finetune` share."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from tasks.core.models.device import Precision
from tasks.core.params import Section

Share = Annotated[float, Field(ge=0, le=1)]


class Augmentation(Section):
    """Ranges from which each picture's own changes are drawn, afresh in every epoch.

    Attributes
    ----------
    flip, grey
        Probabilities of a left-right flip and of turning grey.
    rotation_deg
        Largest turn either way.
    scale
        Smallest and largest factor of size.
    shift
        Largest shift along each axis, as a share of the side.
    brightness, contrast, saturation
        Factors are drawn from `1 - x` to `1 + x`.
    """

    flip: Share
    rotation_deg: Annotated[float, Field(ge=0, le=180)]
    scale: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]
    shift: Share
    brightness: Share
    contrast: Share
    saturation: Share
    grey: Share

    @field_validator("scale")
    @classmethod
    def _in_order(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if scale[0] > scale[1]:
            raise ValueError("must be smallest, then largest")
        return scale


class Recipe(Section):
    """Passes over the pictures, step sizes, seed, device and augmentation."""

    group: dict[str, list[str]]
    epochs: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=2)]
    learning_rate: Annotated[float, Field(gt=0)]
    schedule: Literal["cosine", "constant"]
    weight_decay: Annotated[float, Field(ge=0)]
    seed: Annotated[int, Field(ge=0)]
    device: str
    precision: Precision
    augmentation: Augmentation
