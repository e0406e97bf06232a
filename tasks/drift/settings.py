"""Section `drift` of params.yaml: how a batch is compared with the training data."""

from typing import Annotated

from pydantic import Field

from tasks.core.params import Section


class Params(Section):
    """Section `drift`."""

    min_n: Annotated[int, Field(ge=2)]
    large_effect: Annotated[float, Field(gt=0)]
    confidence: Annotated[float, Field(gt=0, lt=1)]
    resamples: Annotated[int, Field(ge=100)]
    seed: int
