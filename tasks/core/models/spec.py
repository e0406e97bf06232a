"""Description of a model's input and labels, stored as `model.json` beside its weights."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import Field, ValidationError, model_validator

from tasks.core.errors import ParamsError
from tasks.core.labels import EMOTIONS
from tasks.core.params import Section

ONNX = "onnx"  # architecture name of networks that only onnxruntime can run
CHANNELS: Mapping[str, int] = {"rgb": 3, "bgr": 3, "gray": 1}


def accept_former_spelling(cls: type, values: Any) -> Any:
    """Validate `colour` and "grey", as earlier versions wrote them, as `color` and "gray"."""
    if not isinstance(values, dict) or "colour" not in values or "color" in values:
        return values
    color = values["colour"]
    others = {name: value for name, value in values.items() if name != "colour"}
    return others | {"color": "gray" if color == "grey" else color}


class ModelSpec(Section):
    """The description of a model.

    Attributes
    ----------
    architecture
        A name that `build_module` knows, or "onnx".
    labels
        Emotions in the order of the module's outputs.
    color
        Channels of the input in order: three (rgb, bgr) or one (gray).
    mean, std
        One value per channel, in that order; the input is `(pixel / 255 - mean) / std`.
    version
        First 12 hex digits of the weights' sha256; named in predictions.
    source
        Origin of the weights: "trained here", or a name, address and license.
    """

    architecture: str
    labels: tuple[str, ...]
    input_size_px: Annotated[int, Field(ge=1, le=2048)]
    color: Literal["rgb", "bgr", "gray"]
    mean: tuple[Annotated[float, Field(allow_inf_nan=False)], ...]
    std: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...]
    version: str
    source: str

    _former_spelling = model_validator(mode="before")(accept_former_spelling)

    @model_validator(mode="after")
    def _fits(self) -> "ModelSpec":
        unknown = [label for label in self.labels if label not in EMOTIONS]
        if unknown or not self.labels or len({*self.labels}) < len(self.labels):
            raise ValueError(f"labels: must be some of {', '.join(EMOTIONS)}, each once")
        if {len(self.mean), len(self.std)} != {CHANNELS[self.color]}:
            raise ValueError(
                f"mean, std: must have {CHANNELS[self.color]} values for color {self.color}"
            )
        return self


def validation_faults(error: ValidationError) -> str:
    """Return the faults that pydantic found, as "key: message" separated by semicolons."""
    return "; ".join(
        ": ".join(filter(None, (".".join(map(str, fault["loc"])), fault["msg"])))
        for fault in error.errors()
    )


def can_train(spec: ModelSpec) -> bool:
    """Return whether a model's weights can be trained; those in an ONNX file cannot."""
    return spec.architecture != ONNX


def select_rows(
    table: pd.DataFrame, groups: Mapping[str, Sequence[str]], where: str
) -> pd.DataFrame:
    """Keep the rows whose columns hold one of the wanted values; an empty mapping keeps all.

    Parameters
    ----------
    table
        One row per image.
    groups
        Column to wanted values; columns are combined with "and".
    where
        The params key, for the message.

    Raises
    ------
    ParamsError
        For a column that the table lacks, or a selection that keeps nothing.
    """
    chosen = pd.Series(True, index=table.index)
    for column, values in groups.items():
        if column not in table.columns:
            known = ", ".join(table.columns)
            raise ParamsError(f"{where}: the table has no column '{column}' (it has {known})")
        chosen &= table[column].isin(list(values))
    if not chosen.any():
        present = {column: sorted(table[column].dropna().unique()) for column in groups}
        raise ParamsError(
            f"{where}: no picture is in {dict(groups)}; the table has {present}; name another "
            "group, add pictures of more people, or try another split.seed"
        )
    return table[chosen]
