"""The best version ever in use, for each group: many small falls, each within its margin, add up.

Only answers to pictures are kept of a version, so that it need not be asked again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tasks.gate.compare import CHALLENGER, CHAMPION, membership
from tasks.gate.figures import Figures
from tasks.gate.settings import Params


@dataclass(frozen=True)
class Best:
    """A group's best version, and the figures of the challenger against it."""

    group: str
    version: int
    figures: Mapping[str, float]


def best_ever(
    pictures: pd.DataFrame,
    groups: Sequence[str],
    earlier: Mapping[int, pd.Series],
    params: Params,
) -> list[Best]:
    """Compare each group with the version that read most of it right.

    Parameters
    ----------
    pictures
        Frozen rows of `Compared.pictures`.
    groups
        Names as in `Compared.groups`.
    earlier
        Answers of versions once in use, by number: labels with `image_id` as the index.
    params
        The section `promote`; a version counts for a group where it has read `min_n` of these
        pictures, of `min_subjects` people.

    Returns
    -------
    list of Best
        In the order of `groups`, without those that no version counts for.
    """
    inside = membership(pictures, groups)
    answers = {number: pictures["image_id"].map(own) for number, own in earlier.items()}
    chosen: dict[int, list[str]] = {}
    for place, group in enumerate(groups):
        best = _best(pictures[inside[:, place]], answers, params)
        if best is not None:
            chosen.setdefault(best, []).append(group)
    found = {}
    for number, own_groups in chosen.items():
        rows = _against(pictures, answers[number], own_groups, params)
        found |= {best.group: best for best in (Best(g, number, row) for g, row in rows)}
    return [found[group] for group in groups if group in found]


def _best(own: pd.DataFrame, answers: Mapping[int, pd.Series], params: Params) -> int | None:
    """Return the version with the highest recall on a group's pictures; of equals the newest."""
    recalls = {}
    for number, said in answers.items():
        read = own[said[own.index].notna()]
        if len(read) >= params.min_n and read["subject_id"].nunique() >= params.min_subjects:
            recalls[number] = float((said[read.index] == read["emotion"]).mean())
    return max(recalls, key=lambda number: (recalls[number], number)) if recalls else None


def _against(
    pictures: pd.DataFrame, said: pd.Series, groups: Sequence[str], params: Params
) -> list[tuple[str, Mapping[str, float]]]:
    read = pictures[said.notna()]
    right = np.asarray(said[read.index] == read["emotion"])
    figures = Figures(read.assign(correct_champion=right), (CHALLENGER, CHAMPION), params)
    rows = figures.recall(groups).to_dict("records")
    return [(group, row) for group, row in zip(groups, rows, strict=True)]
