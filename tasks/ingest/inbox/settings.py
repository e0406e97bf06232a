"""Section `intake` of params.yaml: what a batch in the inbox must be like to be taken in."""

from typing import Annotated

from pydantic import Field

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
