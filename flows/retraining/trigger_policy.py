"""The retraining trigger: section `retrain` of params.yaml, and whether training is due."""

from datetime import datetime, timedelta
from typing import Annotated

import pandas as pd
from pydantic import Field

from flows.ledger.ledger import Ledger
from tasks.core.errors import DataError
from tasks.core.params import Section, load_section
from tasks.core.paths import Paths
from tasks.core.tables import read_table


class Params(Section):
    """Section `retrain`."""

    new_images: Annotated[int, Field(ge=1)]
    new_children: Annotated[int, Field(ge=1)]
    child_age_bands: list[str]
    max_days: Annotated[float, Field(gt=0, le=36_500)]
    on_drift: bool
    poll_minutes: Annotated[float, Field(ge=0.1, le=525_600)] | None
    cron: str | None
    full_audit_cron: str | None
    commit: bool
    author: Annotated[str, Field(pattern=r"^[^<>\n]*[^<>\s][^<>\n]* <[^<>\s]*>$")]
    branch: str | None


def training_reason(
    untrained: pd.DataFrame,
    last_training: datetime | None,
    now: datetime,
    params: Params,
    drift: float | None,
    large_effect: float,
) -> str:
    """Return why training is due; "" if it is not.

    `untrained` is the result of `untrained_images`. `last_training` is None if no pass ever
    trained; it has a time zone, as `now`. `drift` is the largest standardized difference between a
    batch of `untrained` and the training data, None if nothing was compared; it counts from
    `large_effect` on.
    """
    if last_training is None:
        return "no pass has trained yet"
    n_images = len(untrained)
    if not n_images:
        return ""
    n_children = count_children(untrained, params)
    if n_images >= params.new_images:
        return f"{n_images} new pictures (from {params.new_images} on)"
    if n_children >= params.new_children:
        return f"{n_children} new children (from {params.new_children} on)"
    if params.on_drift and drift is not None and abs(drift) >= large_effect:
        return f"a batch differs by {abs(drift):.2f} from the training data (large: {large_effect})"
    elapsed = now - last_training
    wait = timedelta(days=params.max_days)
    if elapsed < -wait:
        # Otherwise a date from a clock that was far ahead would delay training for years.
        return f"the last training is dated {last_training:%Y-%m-%d}, in the future"
    if elapsed >= wait:
        return f"{elapsed.days} days since the last training and {n_images} new pictures"
    return ""


def count_children(untrained: pd.DataFrame, params: Params) -> int:
    """Count new children: subjects in the children's age bands, new to every training."""
    new = untrained["age_band"].isin(params.child_age_bands) & ~untrained["known"]
    return int(untrained.loc[new, "subject_id"].nunique())


def configured_datasets(paths: Paths) -> frozenset[str]:
    """Return the names of the data sets that a run reads (`ingest.datasets`)."""
    from tasks.ingest.stage import Params as IngestParams

    return frozenset(load_section(paths.params, "ingest", IngestParams).datasets)


def untrained_images(paths: Paths, ledger: Ledger) -> pd.DataFrame:
    """Return the accepted images that the next training would be the first to see.

    The result is `Ledger.untrained` without data sets that params do not name, since no training
    reads them. `known` tells whether the subject was in the data of an earlier training, in any
    split.
    """
    untrained = ledger.untrained()
    untrained = untrained[untrained["dataset"].isin(configured_datasets(paths))]
    if untrained.empty:
        return untrained.assign(known=False)
    people = ledger.trained_people() | _people_of_no_batch(paths, ledger)
    return untrained.assign(known=untrained["subject_id"].isin(people))


def _people_of_no_batch(paths: Paths, ledger: Ledger) -> frozenset[str]:
    """Return the subjects of the last split that came in no batch of the ledger.

    The drawn cohort is one such case. For batches the ledger is more reliable: a run or a failed
    pass may have split data with which no pass trained.
    """
    waiting, complete = ledger.not_trained(), ledger.whole()
    datasets = {dataset for batch, dataset in complete.items() if batch in waiting}
    try:
        table = read_table(paths.split, ("subject_id", "dataset", "batch"))
    except (DataError, OSError):  # missing or torn: the next run writes it anew
        return frozenset()
    in_waiting_dataset = (table["batch"] == "") & table["dataset"].isin(datasets)
    return frozenset(table.loc[~(in_waiting_dataset | table["batch"].isin(waiting)), "subject_id"])
