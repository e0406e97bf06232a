"""Section `retrain` of params.yaml: when training happens again, and what is kept in git of it."""

from typing import Annotated

from pydantic import Field

from tasks.core.params import Section


class Params(Section):
    """Section `retrain`."""

    new_pictures: Annotated[int, Field(ge=1)]
    new_children: Annotated[int, Field(ge=1)]
    children: list[str]
    days: Annotated[float, Field(gt=0)]
    on_drift: bool
    poll_minutes: Annotated[float, Field(gt=0)] | None
    cron: str | None
    full_audit_cron: str | None
    commit: bool
    author: str
    branch: str | None
