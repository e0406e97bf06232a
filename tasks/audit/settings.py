"""How an audit is done: the section `audit` of params.yaml, which every part of it reads."""

from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import Field, field_validator

from tasks.core.params import Section
from tasks.core.tables import GROUP_COLUMNS

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


class Settings(Section):
    """What is compared, and how sure a figure must be.

    Attributes
    ----------
    by
        Columns whose groups are compared.
    depth
        How many of these columns are crossed at once: 1 for each alone, 2 for pairs (girls of a
        band), 3 for triples. The number of groups grows with the power.
    independent_images
        True where every image shows another person, so that none needs a subject id.
    confidence
        Level of every interval.
    min_n
        Pictures that a comparison needs on each side to be tested.
    min_subjects
        Effective subjects that it needs on each side as well (`(Σn)² / Σn²` over the subjects'
        numbers of images): how people vary cannot be told from a few, nor from many of whom one
        has most of the images. Images of nobody known count for none.
    correction
        For the number of comparisons of a family: `holm` holds the chance of any false finding,
        `benjamini_hochberg` the expected share of false ones among the findings.
    power
        With which probability the smallest gap that is told would have been shown.
    equivalence_margin
        A difference below this, as a share, is too small to matter; the tables say where one is
        shown to be that small.
    resamples, seed
        Of the permutations and the cluster bootstrap.
    factors
        Columns that may explain a gap; those that the predictions lack are left out and named.
    standardise_to
        Columns to whose common mix gaps are standardised, one by one and all together.
    calibration_bins
        Bins of equally many pictures.
    pretraining
        What is known of the people that the base model was first trained on: the name of a
        published table, or the path of a CSV that `affectgap datasets count` wrote; null: only what
        was trained here.
    published
        The name of a study whose figures stand beside ours; null for none.
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
    standardise_to: list[str]
    calibration_bins: Annotated[int, Field(ge=2, le=100)]
    pretraining: str | None
    published: str | None

    @field_validator("by")
    @classmethod
    def _groups(cls, by: list[str]) -> list[str]:
        if len(set(by)) < len(by) or not set(by) <= set(GROUP_COLUMNS):
            raise ValueError(f"each once, out of {', '.join(GROUP_COLUMNS)}")
        return by

    def enough(self, pictures: Counts, people: Counts) -> Any:
        """Return which comparisons may be tested: booleans.

        Parameters
        ----------
        pictures, people
            Images and effective subjects of their smaller sides.
        """
        return (pictures >= self.min_n) & (people >= self.min_subjects)

    def least_words(self) -> str:
        """Say what a comparison needs to be tested."""
        return f"{self.min_n} pictures and {self.min_subjects} people"
