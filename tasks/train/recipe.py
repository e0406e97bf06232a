"""How a network is trained: the params that `train` and `finetune` share."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from tasks.core.models.device import Precision
from tasks.core.params import Section

Share = Annotated[float, Field(ge=0, le=1)]
LossName = Literal[
    "cross_entropy",
    "label_smoothed",
    "class_balanced",
    "mse",
    "multilabel_soft_margin",
    "multi_margin",
]
OptimiserName = Literal["adam", "adamw", "adagrad", "rmsprop", "sgd", "ranger"]


class Loss(Section):
    """What the answers are measured against the labels by; see `tasks.train.losses`.

    Attributes
    ----------
    name
        Which loss.
    smoothing
        Of `label_smoothed`: the share of the target that is spread evenly over all labels.
    beta
        Of `class_balanced`: 0 weighs every picture alike; towards 1, every label alike.
    """

    name: LossName
    smoothing: Annotated[float, Field(ge=0, lt=1)]
    beta: Annotated[float, Field(ge=0, lt=1)]


class Optimiser(Section):
    """What turns gradients into steps; see `tasks.train.optimisers`.

    Attributes
    ----------
    name
        Which optimiser.
    momentum
        Of `sgd` and `rmsprop`: how much of the step before goes into the next one.
    """

    name: OptimiserName
    momentum: Annotated[float, Field(ge=0, lt=1)]


class Augmentation(Section):
    """Ranges from which each picture's own changes are drawn, afresh in every epoch.

    Attributes
    ----------
    flip, grey
        Probabilities of a left-right flip and of turning grey.
    rotation_deg
        Largest turn either way.
    shear_deg
        Largest slant of the upright lines either way.
    scale
        Smallest and largest factor of size.
    shift
        Largest shift along each axis, as a share of the side.
    brightness, contrast, saturation
        Factors are drawn from `1 - x` to `1 + x`.
    """

    flip: Share
    rotation_deg: Annotated[float, Field(ge=0, le=180)]
    shear_deg: Annotated[float, Field(ge=0, le=60)]
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
    """Passes over the pictures, loss, step sizes, seed, device and augmentation.

    Attributes
    ----------
    group
        Column to wanted values; empty: every picture.
    epochs
        Passes over the pictures.
    batch_size
        Pictures a step, on all devices together.
    loss, optimiser
        See there.
    learning_rate, schedule
        The optimiser's rate, and how it changes with the steps; see `learning_rate` in
        `tasks.train.optimisers`.
    weight_decay
        The optimiser's; see there.
    balance
        Columns of the split table whose cells (combinations of values) come equally often in an
        epoch; empty: every picture comes once.
    keep
        Which epoch's weights are the outcome: the one that does best on validation, or the last.
    seed
        Of the first weights, the order of the pictures and their augmentation.
    device, precision
        Where it is computed, and in which numbers.
    compile
        Whether the network goes through `torch.compile`: never, always, or on CUDA alone (auto).
    augmentation
        How the pictures are changed.
    """

    group: dict[str, list[str]]
    epochs: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=2)]
    loss: Loss
    optimiser: Optimiser
    learning_rate: Annotated[float, Field(gt=0)]
    schedule: Literal["cosine", "linear", "step", "constant"]
    weight_decay: Annotated[float, Field(ge=0)]
    balance: list[str]
    keep: Literal["best", "best_accuracy", "last"]
    seed: Annotated[int, Field(ge=0)]
    device: str
    precision: Precision
    compile: Literal["never", "auto", "always"]
    augmentation: Augmentation
