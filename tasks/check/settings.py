"""The parameters of the check stage, in a module of its own so that the suites can import it."""

from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from tasks.core.labels import EMOTIONS, UNKNOWN
from tasks.core.params import Section
from tasks.core.tables import MANIFEST_SCHEMA

Share = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Params(Section):
    """Section `check` of params.yaml; each key is explained there."""

    emotions: tuple[str, ...]
    age_bands: tuple[str, ...]
    age_years: tuple[float, float]
    max_age_span_years: Annotated[float, Field(ge=0)]
    min_side_px: Count
    max_quarantined_share: Annotated[float, Field(ge=0, le=1)]
    min_rows: Count
    group_by: Annotated[tuple[str, ...], Field(min_length=1)]
    min_per_group: Count
    min_subjects_per_group: Count
    max_label_share: Share
    required_columns: tuple[str, ...]

    @property
    def allowed_emotions(self) -> tuple[str, ...]:
        """Return the emotions that may occur: those listed, or all if none is."""
        return self.emotions or EMOTIONS

    @field_validator("emotions")
    @classmethod
    def _known_emotions(cls, emotions: tuple[str, ...]) -> tuple[str, ...]:
        return _out_of(emotions, EMOTIONS, "emotions")

    @field_validator("group_by", "required_columns")
    @classmethod
    def _known_columns(cls, columns: tuple[str, ...]) -> tuple[str, ...]:
        return _out_of(columns, MANIFEST_SCHEMA.names, "columns of the manifest")

    @field_validator("age_bands")
    @classmethod
    def _named_bands(cls, bands: tuple[str, ...]) -> tuple[str, ...]:
        if UNKNOWN in bands:
            raise ValueError(f"'{UNKNOWN}' is always allowed and is no band")
        return bands

    @model_validator(mode="after")
    def _ages_in_order(self) -> Self:
        if self.age_years[0] >= self.age_years[1]:
            raise ValueError("age_years must be [lowest, highest]")
        return self


def _out_of(words: tuple[str, ...], known: Sequence[str], what: str) -> tuple[str, ...]:
    for word in words:
        if word not in known:
            raise ValueError(f"'{word}' is none of the {what} ({', '.join(known)})")
    if len(set(words)) != len(words):
        raise ValueError("a name occurs twice")
    return words
