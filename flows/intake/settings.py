"""Section `intake` of params.yaml: the requirements on batches of the inbox."""

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
    min_images: Annotated[int, Field(ge=1)]
    max_faulty_share: Share
    max_repeated_share: Share
    max_label_share: Share
    required_columns: list[str]


def intake_datasets(datasets: Iterable[str]) -> list[str]:
    """Return the data sets that accept batches: all but the drawn cohort."""
    return sorted(set(datasets) - {DRAWN_DATASET})


def check_intake_dataset(params: Params, datasets: Iterable[str], where: Path) -> None:
    """Raise ParamsError if `intake.dataset` is not one of `ingest.datasets` that accept batches.

    `where` is the params file, for the message.
    """
    takers = intake_datasets(datasets)
    if params.dataset not in takers:
        raise ParamsError(
            f"{where}: intake.dataset '{params.dataset}' takes no batches; it must be one of "
            f"ingest.datasets ({', '.join(takers) or 'none of them does; add one'})"
        )
