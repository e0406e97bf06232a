"""Training configuration: the params that `train` and `finetune` share."""

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
OptimizerName = Literal["adam", "adamw", "adagrad", "rmsprop", "sgd", "ranger"]


class Loss(Section):
    """The loss; see `tasks.core.training.losses`.

    Attributes
    ----------
    smoothing
        For `label_smoothed`: share of the target that is spread evenly over all labels.
    beta
        For `class_balanced`: 0 weights every image equally; towards 1, every label equally.
    """

    name: LossName
    smoothing: Annotated[float, Field(ge=0, lt=1)]
    beta: Annotated[float, Field(ge=0, lt=1)]


class Optimizer(Section):
    """The optimizer (`tasks.core.training.optimizers`); `momentum` is of `sgd` and `rmsprop`."""

    name: OptimizerName
    momentum: Annotated[float, Field(ge=0, lt=1)]


class Augmentation(Section):
    """Ranges of the random augmentation, drawn for each image in every epoch.

    Attributes
    ----------
    flip, gray
        Probabilities of a horizontal flip and of conversion to gray.
    rotation_deg
        Largest rotation in either direction.
    shear_deg
        Largest horizontal shear in either direction.
    scale
        Smallest and largest zoom factor.
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
    gray: Share

    @field_validator("scale")
    @classmethod
    def _in_order(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if scale[0] > scale[1]:
            raise ValueError("must be smallest, then largest")
        return scale


class TrainConfig(Section):
    """Configuration of one training.

    Attributes
    ----------
    subset
        Wanted values by column; empty: every image.
    batch_size
        Images per step, over all devices.
    balance_by
        Columns of the split table whose combinations of values occur equally often in an epoch;
        empty: every image occurs once.
    checkpoint
        The epoch to select: the best by validation recall or accuracy, or the last.
    seed
        Seed of the initial weights, the sample order and the augmentation.
    compile
        Whether to use `torch.compile`; auto: only on CUDA.
    """

    subset: dict[str, list[str]]
    epochs: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=2)]
    loss: Loss
    optimizer: Optimizer
    learning_rate: Annotated[float, Field(gt=0)]
    schedule: Literal["cosine", "linear", "step", "constant"]
    weight_decay: Annotated[float, Field(ge=0)]
    balance_by: list[str]
    checkpoint: Literal["best", "best_accuracy", "last"]
    seed: Annotated[int, Field(ge=0)]
    device: str
    precision: Precision
    compile: Literal["never", "auto", "always"]
    augmentation: Augmentation
