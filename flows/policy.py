"""Section `retrain` of params.yaml, and what follows from it: whether training is due, and why."""

from datetime import datetime, timedelta
from typing import Annotated

import pandas as pd
from pydantic import Field

from tasks.core.errors import DataError
from tasks.core.ledger import Ledger
from tasks.core.params import Section, load_section
from tasks.core.paths import Paths
from tasks.core.tables import read_table


class Params(Section):
    """Section `retrain`."""

    new_pictures: Annotated[int, Field(ge=1)]
    new_children: Annotated[int, Field(ge=1)]
    children: list[str]
    days: Annotated[float, Field(gt=0, le=36_500)]
    on_drift: bool
    poll_minutes: Annotated[float, Field(ge=0.1, le=525_600)] | None
    cron: str | None
    full_audit_cron: str | None
    commit: bool
    author: Annotated[str, Field(pattern=r"^[^<>\n]*[^<>\s][^<>\n]* <[^<>\s]*>$")]
    branch: str | None


def due(
    untrained: pd.DataFrame,
    last_training: datetime | None,
    now: datetime,
    params: Params,
    drift: float | None,
    large_effect: float,
) -> str:
    """Tell whether training is due.

    Parameters
    ----------
    untrained
        Accepted pictures that no model has seen (`untrained_pictures`), one row each, with
        `age_band`, `subject_id` and `known`.
    last_training
        When a pass last trained; None where none ever did. With a time zone, as `now`.
    now
        The time.
    params
        The policy.
    drift
        The largest standardised difference between a batch of `untrained` and the training data;
        None where nothing was compared.
    large_effect
        From where on such a difference counts (`drift.large_effect`).

    Returns
    -------
    str
        The reason, for a person; "" where training is not due.
    """
    if last_training is None:
        return "no pass has trained yet"
    pictures = len(untrained)
    if not pictures:
        return ""
    children = count_children(untrained, params)
    if pictures >= params.new_pictures:
        return f"{pictures} new pictures (from {params.new_pictures} on)"
    if children >= params.new_children:
        return f"{children} new children (from {params.new_children} on)"
    if params.on_drift and drift is not None and abs(drift) >= large_effect:
        return f"a batch differs by {abs(drift):.2f} from the training data (large: {large_effect})"
    passed = now - last_training
    wait = timedelta(days=params.days)
    if passed < -wait:
        # Else a training dated by a clock that was far ahead would put this off for years.
        return f"the last training is dated {last_training:%Y-%m-%d}, in the future"
    if passed >= wait:
        return f"{passed.days} days since the last training and {pictures} new pictures"
    return ""


def count_children(untrained: pd.DataFrame, params: Params) -> int:
    """Count the new children: people of the bands of children, `known` to no earlier training."""
    new = untrained["age_band"].isin(params.children) & ~untrained["known"]
    return int(untrained.loc[new, "subject_id"].nunique())


def datasets_read(paths: Paths) -> frozenset[str]:
    """Return the names of the data sets that a run reads (`ingest.datasets`)."""
    from tasks.ingest.stage import Params as IngestParams

    return frozenset(load_section(paths.params, "ingest", IngestParams).datasets)


def untrained_pictures(paths: Paths, ledger: Ledger) -> pd.DataFrame:
    """Return the accepted pictures that the next training would be the first to see.

    Parameters
    ----------
    paths
        The project's paths.
    ledger
        The project's ledger.

    Returns
    -------
    pandas.DataFrame
        As `Ledger.untrained`, without the data sets that params do not name: no training reads
        those, so that they make none due. `known` tells whether the person was in the pictures of
        an earlier pass that trained, in whichever part of the split.
    """
    untrained = ledger.untrained()
    untrained = untrained[untrained["dataset"].isin(datasets_read(paths))]
    if untrained.empty:
        return untrained.assign(known=False)
    people = ledger.trained_people() | _people_of_no_batch(paths, ledger)
    return untrained.assign(known=untrained["subject_id"].isin(people))


def _people_of_no_batch(paths: Paths, ledger: Ledger) -> frozenset[str]:
    """Return the people of the last split of whom the ledger cannot tell.

    They came in no batch that it knows, as the drawn cohort. Of the batches that it knows it tells
    better: a run or a pass that failed may have split what no pass trained with.
    """
    waiting, whole = ledger.not_trained(), ledger.whole()
    datasets = {dataset for batch, dataset in whole.items() if batch in waiting}
    try:
        table = read_table(paths.split, ("subject_id", "dataset", "batch"))
    except (DataError, OSError):  # none yet, or torn: it is the next run that writes it anew
        return frozenset()
    in_whole = (table["batch"] == "") & table["dataset"].isin(datasets)
    return frozenset(table.loc[~(in_whole | table["batch"].isin(waiting)), "subject_id"])
