"""Both models' figures on some pictures, the change, and its interval: people drawn, not pictures.

These intervals hold each for its own row. The rows that can stop a version take simultaneous limits
in their place (`tasks.gate.families`). Of the first model, which has nothing to be compared with,
the interval is that of its own figure.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import sparse

from tasks.core.statistics.difference import Sides, differences
from tasks.core.statistics.recalls import recalls
from tasks.core.statistics.resample import Resampled, percentile_interval, ratio
from tasks.gate.compare import CHALLENGER, CHAMPION
from tasks.gate.families import size_of
from tasks.gate.settings import Params

FIGURES = ["n", "subjects", "effective", "champion", "challenger", "change", "ci_low", "ci_high"]
FIGURES += ["method", "own_low", "own_high"]
SINGLE = "of this row alone"


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

    def recall(self, members: np.ndarray) -> pd.DataFrame:
        """Compare recall in each group, `(pictures, k)` booleans; no figures where one is empty."""
        some = members.any(axis=0)
        known = self.pictures["subject_known"].to_numpy(dtype=bool)
        right = {side: self._values("correct", side).astype(bool) for side in self._sides()}
        table = pd.DataFrame(np.nan, index=range(len(some)), columns=FIGURES)
        table["method"] = ""
        counts = [size_of(self.pictures["subject_id"][own]) for own in members.T]
        for name in ("n", "subjects", "effective"):
            table[name] = [getattr(size, name) for size in counts]
        if some.any():
            inside = sparse.csr_array(members[:, some].astype(float))
            own = self._compared(inside, right, known)
            for name in [name for name in FIGURES[3:] if name != "method"]:
                table.loc[some, name] = own[name].to_numpy(dtype=float)
            table.loc[some, "method"] = SINGLE
        return table

    def mean(self, column: str, answered: bool = False) -> dict[str, object]:
        """Compare the mean of a figure, such as `brier`, over all or the pictures all answered."""
        means, draws, used = {}, {}, np.ones(len(self.pictures), dtype=bool)
        for side in self._sides() if answered else ():
            used &= ~pd.isna(self._values("answer", side))
        for side in self._sides():
            values = np.where(used, self._values(column, side).astype(float), 0.0)
            means[side] = float(values.sum() / used.sum()) if used.any() else np.nan
            sums = self.sampled.sums(np.stack([values, used], axis=1))
            draws[side] = ratio(sums[:, 0], sums[:, 1])
        size = size_of(self.pictures["subject_id"][used])
        counts = {name: getattr(size, name) for name in ("n", "subjects", "effective")}
        return self._figures(means, draws, size.subjects) | counts

    def _figures(
        self, value: dict[str, float], draws: dict[str, np.ndarray], people: int
    ) -> dict[str, object]:
        """Put values, change and interval together."""
        champion, new = value.get(CHAMPION, np.nan), value[CHALLENGER]
        own = self._interval(draws[CHALLENGER], new, people)
        both = own
        if self.paired:
            both = self._interval(draws[CHALLENGER] - draws[CHAMPION], new - champion, people)
        return {
            "champion": champion,
            "challenger": new,
            "change": new - champion,
            "ci_low": both[0],
            "ci_high": both[1],
            "method": SINGLE,
            "own_low": own[0],
            "own_high": own[1],
        }

    def _interval(self, draws: np.ndarray, value: float, people: int) -> tuple[float, float]:
        """Return the draws' interval, which holds the value also where few people are drawn."""
        low, high = percentile_interval(draws[:, None], np.array([people]), self.confidence)
        return float(np.minimum(low[0], value)), float(np.maximum(high[0], value))

    def _compared(
        self, members: sparse.csr_array, right: dict[str, np.ndarray], known: np.ndarray
    ) -> pd.DataFrame:
        """Compare recalls of groups that all have a picture."""
        own = recalls(self.sampled, members, right[CHALLENGER], known, self.confidence)
        alone = {"own_low": own["ci_low"], "own_high": own["ci_high"]}
        if not self.paired:
            own = own.assign(champion=np.nan, challenger=own["recall"], change=np.nan)
            return own.assign(**alone)
        sides = [Sides.of(members, right[side]) for side in (CHALLENGER, CHAMPION)]
        change = differences(self.sampled, *sides, known, self.confidence, "models")
        names = {"recall_a": "challenger", "recall_b": "champion", "gap": "change"}
        return change.rename(columns=names).assign(**alone)

    def _values(self, column: str, side: str) -> np.ndarray:
        return np.asarray(self.pictures[f"{column}_{side}"])

    def _sides(self) -> tuple[str, ...]:
        return (CHALLENGER, CHAMPION) if self.paired else (CHALLENGER,)
