"""The few lines that `affectgap study` ends with: what was chosen, why, and how it did in test."""

from collections.abc import Iterator

import pandas as pd

from flows.headline import notices
from flows.stores import where_runs_are
from flows.study_state import StudyState
from tasks.core.labels import ALL
from tasks.core.paths import Paths
from tasks.core.tables import read_csv
from tasks.study.test_looks import LOOKS, read_looks


def study_lines(paths: Paths, state: StudyState) -> Iterator[str]:
    """Yield the lines about a finished study.

    Parameters
    ----------
    paths
        The project's paths.
    state
        The study; it knows its results.
    """
    for decision in state.progress().decisions:
        yield f"{decision.round}: {decision.chosen.name}. {decision.why}"
    test = read_csv(paths.at("study/test.csv"), keep_default_na=False)
    for row in test[test["dimension"] == ALL].to_dict("records"):
        yield (
            f"test pictures, {str(row['measure']).replace('_', ' ')}: {float(row['value']):.2f} "
            f"({float(row['ci_low']):.2f}–{float(row['ci_high']):.2f}) n={row['pictures']}"
        )
    yield from _look_lines(test, paths)
    yield from notices(paths)
    yield "the winner as params: affectgap use study/chosen.yaml"
    yield f"report: {paths.at('reports/study.html')}"
    yield f"runs:   {where_runs_are(paths)}"


def _look_lines(test: pd.DataFrame, paths: Paths) -> Iterator[str]:
    """Count the looks at the test split so far."""
    if "look" not in test or test.empty:
        return
    looks, this = len(read_looks(paths.at(LOOKS))), int(test["look"].iloc[0])
    if looks <= 1:
        yield f"test pictures were looked at once ({LOOKS})"
    else:
        yield (
            f"test pictures were looked at {looks} times, this is look {this}: a figure that "
            f"earlier ones had a part in may be too high ({LOOKS})"
        )
