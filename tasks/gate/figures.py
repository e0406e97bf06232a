"""Measures of both models on a set of images, and the change with a bootstrap interval.

The bootstrap draws subjects. These intervals are not simultaneous; rows that can stop a version use
the simultaneous limits of `tasks.gate.families` instead. For the first model, which is compared
with none, the interval is that of its own figure.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import sparse

from tasks.core.statistics.cluster_bootstrap import Resampled, percentile_interval, ratio
from tasks.core.statistics.differences import Sides, differences
from tasks.core.statistics.recalls import recalls
from tasks.gate.compare import CHALLENGER, CHAMPION
from tasks.gate.families import size_of
from tasks.gate.settings import Params

FIGURES = ["n", "subjects", "effective", "champion", "challenger", "change", "ci_low", "ci_high"]
FIGURES += ["method", "own_low", "own_high"]
SINGLE = "of this row alone"


class Figures:
    """The measures on some rows of `Compared.pictures`, at least one."""

    def __init__(self, images: pd.DataFrame, sides: Sequence[str], params: Params) -> None:
        self.images = images.reset_index(drop=True)
        self.paired = CHAMPION in sides
        self.confidence = params.confidence
        self.sampled = Resampled(self.images["subject_id"], params.resamples, params.seed)

    def recall(self, members: np.ndarray) -> pd.DataFrame:
        """Compare recall in each group, given as masks `(images, k)`; NaN for empty groups."""
        filled = members.any(axis=0)
        known = self.images["subject_known"].to_numpy(dtype=bool)
        correct = {side: self._values("correct", side).astype(bool) for side in self._sides()}
        table = pd.DataFrame(np.nan, index=range(len(filled)), columns=FIGURES)
        table["method"] = ""
        counts = [size_of(self.images["subject_id"][mask]) for mask in members.T]
        for name in ("n", "subjects", "effective"):
            table[name] = [getattr(size, name) for size in counts]
        if filled.any():
            masks = sparse.csr_array(members[:, filled].astype(float))
            compared = self._compared(masks, correct, known)
            for name in [name for name in FIGURES[3:] if name != "method"]:
                table.loc[filled, name] = compared[name].to_numpy(dtype=float)
            table.loc[filled, "method"] = SINGLE
        return table

    def mean(self, column: str, answered: bool = False) -> dict[str, object]:
        """Compare the mean of a column such as `brier`; `answered` skips missing predictions."""
        means, draws, used = {}, {}, np.ones(len(self.images), dtype=bool)
        for side in self._sides() if answered else ():
            used &= ~pd.isna(self._values("answer", side))
        for side in self._sides():
            values = np.where(used, self._values(column, side).astype(float), 0.0)
            means[side] = float(values.sum() / used.sum()) if used.any() else np.nan
            sums = self.sampled.sums(np.stack([values, used], axis=1))
            draws[side] = ratio(sums[:, 0], sums[:, 1])
        size = size_of(self.images["subject_id"][used])
        counts = {name: getattr(size, name) for name in ("n", "subjects", "effective")}
        return self._figures(means, draws, size.subjects) | counts

    def _figures(
        self, value: dict[str, float], draws: dict[str, np.ndarray], people: int
    ) -> dict[str, object]:
        champion, new = value.get(CHAMPION, np.nan), value[CHALLENGER]
        single = self._interval(draws[CHALLENGER], new, people)
        change = single
        if self.paired:
            change = self._interval(draws[CHALLENGER] - draws[CHAMPION], new - champion, people)
        return {
            "champion": champion,
            "challenger": new,
            "change": new - champion,
            "ci_low": change[0],
            "ci_high": change[1],
            "method": SINGLE,
            "own_low": single[0],
            "own_high": single[1],
        }

    def _interval(self, draws: np.ndarray, value: float, people: int) -> tuple[float, float]:
        """Return the percentile interval, widened to contain the value (for few subjects)."""
        low, high = percentile_interval(draws[:, None], np.array([people]), self.confidence)
        return float(np.minimum(low[0], value)), float(np.maximum(high[0], value))

    def _compared(
        self, members: sparse.csr_array, correct: dict[str, np.ndarray], known: np.ndarray
    ) -> pd.DataFrame:
        """Compare the recalls of groups that are not empty."""
        table = recalls(self.sampled, members, correct[CHALLENGER], known, self.confidence)
        single = {"own_low": table["ci_low"], "own_high": table["ci_high"]}
        if not self.paired:
            table = table.assign(champion=np.nan, challenger=table["recall"], change=np.nan)
            return table.assign(**single)
        sides = [Sides.of(members, correct[side]) for side in (CHALLENGER, CHAMPION)]
        change = differences(self.sampled, *sides, known, self.confidence, "models")
        names = {"recall_a": "challenger", "recall_b": "champion", "gap": "change"}
        return change.rename(columns=names).assign(**single)

    def _values(self, column: str, side: str) -> np.ndarray:
        return np.asarray(self.images[f"{column}_{side}"])

    def _sides(self) -> tuple[str, ...]:
        return (CHALLENGER, CHAMPION) if self.paired else (CHALLENGER,)
