"""Both models' figures on some pictures, the change, and its interval: people drawn, not pictures.

One draw of people serves both models (they read the same pictures), so that the interval is that
of the paired change. Of the first model, which has nothing to be compared with, it is the interval
of its own figure.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import sparse

from tasks.core.statistics.difference import Sides, differences
from tasks.core.statistics.recalls import recalls
from tasks.core.statistics.resample import Resampled, percentile_interval, ratio
from tasks.gate.compare import CHALLENGER, CHAMPION, membership
from tasks.gate.settings import Params

FIGURES = ["n", "subjects", "champion", "challenger", "change", "ci_low", "ci_high"]


class Figures:
    """The figures of one part's pictures.

    Parameters
    ----------
    pictures
        Rows of `Compared.pictures`; at least one.
    sides
        As in `Compared`.
    params
        Of them: confidence, resamples, seed.
    """

    def __init__(self, pictures: pd.DataFrame, sides: Sequence[str], params: Params) -> None:
        self.pictures = pictures.reset_index(drop=True)
        self.paired = CHAMPION in sides
        self.confidence = params.confidence
        self.sampled = Resampled(self.pictures["subject_id"], params.resamples, params.seed)

    def recall(self, groups: Sequence[str] | None) -> pd.DataFrame:
        """Compare recall in each group, or over all pictures (None), one row each.

        Parameters
        ----------
        groups
            Names as in `Compared.groups`; one without a picture has n 0 and no figures.
        """
        members = self._members(groups)
        some = np.asarray(members.sum(axis=0)) > 0
        known = self.pictures["subject_known"].to_numpy(dtype=bool)
        right = {side: self._values("correct", side).astype(bool) for side in self._sides()}
        table = pd.DataFrame(np.nan, index=range(len(some)), columns=FIGURES)
        table[["n", "subjects"]] = 0
        if some.any():
            own = self._compared(members[:, some], right, known)
            table.loc[some, FIGURES] = own[FIGURES].to_numpy(dtype=float)
        return table

    def worst_recall(self, groups: Sequence[str]) -> tuple[dict[str, float], dict[str, str]]:
        """Compare the worst of some groups' recalls; returns figures and each side's worst group.

        The worst group may be another one for each model, and in each draw.
        """
        members = self._members(groups)
        worst, names, draws = {}, {}, {}
        for side in self._sides():
            hits = Sides.of(members, self._values("correct", side).astype(bool)).hits
            shares = ratio(np.asarray(hits.sum(axis=0)), np.asarray(members.sum(axis=0)))
            worst[side], names[side] = float(shares.min()), groups[int(shares.argmin())]
            own = ratio(self.sampled.sums(hits), self.sampled.sums(members))
            # A draw may miss all people of a group; it is then the worst of the others.
            draws[side] = np.fmin.reduce(own, axis=1)
        figures = self._figures(worst, draws, int(self.sampled.count(members).min()))
        inside = np.asarray(members.sum(axis=1)).ravel() > 0
        people = int(self.pictures["subject_id"][inside].nunique())
        return figures | {"n": float(inside.sum()), "subjects": float(people)}, names

    def mean(self, column: str, answered: bool = False) -> dict[str, float]:
        """Compare the mean of a figure, such as `brier`, over all or the pictures all answered."""
        means, draws, used = {}, {}, np.ones(len(self.pictures), dtype=bool)
        for side in self._sides() if answered else ():
            used &= ~pd.isna(self._values("answer", side))
        for side in self._sides():
            values = np.where(used, self._values(column, side).astype(float), 0.0)
            means[side] = float(values.sum() / used.sum()) if used.any() else np.nan
            sums = self.sampled.sums(np.stack([values, used], axis=1))
            draws[side] = ratio(sums[:, 0], sums[:, 1])
        people = int(self.pictures["subject_id"][used].nunique())
        counts = {"n": float(used.sum()), "subjects": float(people)}
        return self._figures(means, draws, people) | counts

    def _figures(
        self, value: dict[str, float], draws: dict[str, np.ndarray], people: int
    ) -> dict[str, float]:
        """Put values, change and interval together."""
        champion = value.get(CHAMPION, np.nan)
        moved = draws[CHALLENGER] - draws[CHAMPION] if self.paired else draws[CHALLENGER]
        low, high = percentile_interval(moved[:, None], np.array([people]), self.confidence)
        counts = {"n": float(len(self.pictures)), "subjects": float(self.sampled.people)}
        sides = {"champion": champion, "challenger": value[CHALLENGER]}
        limits = {"ci_low": float(low[0]), "ci_high": float(high[0])}
        return counts | sides | {"change": value[CHALLENGER] - champion} | limits

    def _compared(
        self, members: sparse.csr_array, right: dict[str, np.ndarray], known: np.ndarray
    ) -> pd.DataFrame:
        """Compare recalls of groups that all have a picture."""
        if not self.paired:
            own = recalls(self.sampled, members, right[CHALLENGER], known, self.confidence)
            return own.assign(champion=np.nan, challenger=own["recall"], change=np.nan)
        sides = [Sides.of(members, right[side]) for side in (CHALLENGER, CHAMPION)]
        own = differences(self.sampled, *sides, known, self.confidence, "models")
        names = {"recall_a": "challenger", "recall_b": "champion", "gap": "change"}
        return own.rename(columns=names | {"n_a": "n", "subjects_a": "subjects"})

    def _members(self, groups: Sequence[str] | None) -> sparse.csr_array:
        if groups is None:
            return sparse.csr_array(np.ones((len(self.pictures), 1)))
        return sparse.csr_array(membership(self.pictures, groups).astype(float))

    def _values(self, column: str, side: str) -> np.ndarray:
        return np.asarray(self.pictures[f"{column}_{side}"])

    def _sides(self) -> tuple[str, ...]:
        return (CHALLENGER, CHAMPION) if self.paired else (CHALLENGER,)
