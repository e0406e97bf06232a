"""Section `intake` of params.yaml: what a batch in the inbox must be like to be taken in."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import Field

from tasks.core.errors import ParamsError
from tasks.core.labels import DRAWN_DATASET
from tasks.core.params import Section

Share = Annotated[float, Field(ge=0, le=1)]


class Params(Section):
    """Section `intake`."""

    dataset: str
    max_files: Annotated[int, Field(ge=1)]
    max_file_mb: Annotated[float, Field(gt=0)]
    max_batch_mb: Annotated[float, Field(gt=0)]
    min_pictures: Annotated[int, Field(ge=1)]
    max_faulty_share: Share
    max_repeated_share: Share
    max_label_share: Share
    required: list[str]


def takers_of(datasets: Iterable[str]) -> list[str]:
    """Return the data sets that take batches: the drawn cohort is made by its stage."""
    return sorted(set(datasets) - {DRAWN_DATASET})


def require_taker(params: Params, datasets: Iterable[str], where: Path) -> None:
    """Check `intake.dataset` against `ingest.datasets`, before any batch is blamed for it.

    Parameters
    ----------
    params
        Section `intake`.
    datasets
        The names in `ingest.datasets`.
    where
        The file, for the message.

    Raises
    ------
    ParamsError
        One line that names both keys and what `intake.dataset` may be.
    """
    takers = takers_of(datasets)
    if params.dataset not in takers:
        raise ParamsError(
            f"{where}: intake.dataset '{params.dataset}' takes no batches; it must be one of "
            f"ingest.datasets ({', '.join(takers) or 'none of them does; add one'})"
        )
