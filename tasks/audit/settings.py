"""How an audit is done: the section `audit` of params.yaml, which every part of it reads."""

from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import Field, field_validator

from tasks.core.labels import UNKNOWN
from tasks.core.params import Section
from tasks.core.tables import GROUP_COLUMNS

# With more compared columns than this, gaps are standardized to emotions and to all columns
# together, for all emotions pooled: every further mix costs time in proportion to the square.
MANY_COLUMNS = 6
Counts = int | pd.Series
Correction = Literal["holm", "benjamini_hochberg"]

# Columns that hold figures; every other column that is compared or explained by holds names.
NUMBERS: tuple[str, ...] = (
    "age_years",
    "face_side_px",
    "sharpness",
    "brightness",
    "detector_score",
)

# Units of the numeric columns; any other column is categorical, whatever it holds.
UNITS = {
    "age_years": "years",
    "face_side_px": "px",
    "sharpness": "",
    "brightness": "gray levels",
    "detector_score": "",
}


class Settings(Section):
    """What is compared, and how certain a figure must be.

    `depth` is how many columns of `by` are crossed at once; the number of groups grows
    exponentially with it. `min_n` and `min_subjects` are the images and effective subjects (`(Σn)²
    / Σn²` over the subjects' numbers of images) that a comparison needs on each side to be tested:
    the variation between subjects cannot be estimated from a few, nor from many of whom one has
    most of the images. Images of unknown subjects do not count. With `independent_images`, every
    image shows another person, so that none needs a subject id.

    `correction` is for the comparisons of a family: `holm` controls the chance of any false
    finding, `benjamini_hochberg` the expected share of false ones among the findings. `power` is
    the probability with which the smallest reported gap would have been detected. Differences below
    `equivalence_margin`, as a share, are too small to matter. `resamples` and `seed` are those of
    the permutations and the cluster bootstrap.

    `factors` are columns that may explain a gap; those that the predictions lack are left out and
    named. Gaps are standardized to the common mix of the columns `standardize_to`, one by one and
    all together. `calibration_bins` have equally many images. `pretraining` names a published table
    of the base model's training subjects, or the path of a CSV that `affectgap datasets count`
    wrote; with None, only what was trained here is counted. `published` names a study whose figures
    are put beside ours.
    """

    by: Annotated[list[str], Field(min_length=1)]
    depth: Annotated[int, Field(ge=1, le=4)]
    independent_images: bool
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    min_n: Annotated[int, Field(ge=1)]
    min_subjects: Annotated[int, Field(ge=2)]
    correction: Correction
    power: Annotated[float, Field(gt=0.05, lt=1)]
    equivalence_margin: Annotated[float, Field(gt=0, lt=1)]
    resamples: Annotated[int, Field(ge=100, le=100_000)]
    seed: Annotated[int, Field(ge=0)]
    factors: list[str]
    standardize_to: list[str]
    calibration_bins: Annotated[int, Field(ge=2, le=100)]
    pretraining: str | None
    published: str | None

    @field_validator("by")
    @classmethod
    def _groups(cls, by: list[str]) -> list[str]:
        if len(set(by)) < len(by) or not set(by) <= set(GROUP_COLUMNS):
            raise ValueError(f"each once, out of {', '.join(GROUP_COLUMNS)}")
        return by

    def enough(self, images: Counts, people: Counts) -> Any:
        """Return which comparisons may be tested, by the sizes of their smaller sides."""
        return (images >= self.min_n) & (people >= self.min_subjects)

    def least_words(self) -> str:
        """Describe what a comparison needs to be tested."""
        return f"{self.min_n} pictures and {self.min_subjects} people"


def factor_values(part: pd.DataFrame, name: str) -> pd.Series | None:
    """Return a column as floats (columns of `UNITS`) or text; None where there is no such column.

    Values that are empty, "unknown" or not a number where one is expected are missing.
    """
    if name not in part.columns:
        return None
    column = part[name]
    if name in UNITS:
        return pd.to_numeric(column, errors="coerce").astype(float)
    words = column.astype("str").where(column.notna())
    return words.where(~words.isin([UNKNOWN, ""]))
