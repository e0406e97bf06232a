"""The few comparisons that can stop a version, in families with simultaneous limits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tasks.core.statistics.clusters import People
from tasks.gate.compare import ALL_CHANGES, CHALLENGER, CHAMPION, Compared, Named
from tasks.gate.decision import (
    ALL,
    BEST,
    CALIBRATION,
    FAIL,
    FROZEN,
    GROUP,
    NEW,
    OVERALL,
    ROBUSTNESS,
)
from tasks.gate.limits import (
    Comparison,
    Family,
    critical_values,
    effective_people,
    limits,
    outcomes,
    spent,
)
from tasks.gate.settings import NotShown, Params

# Shares of the error rate. Recall of the named groups gets most of it: other harm either also harms
# these groups, or is large enough to be detected at a small rate (decision 0010).
_SHARES = {"recall": 16.0, "best": 2.0, "new": 1.0, "other": 1.0}
RECALL_SHARE = 16.0 / 20.0  # where all of them have comparisons


@dataclass(frozen=True)
class Size:
    """Number of images, subjects and effective subjects of a comparison."""

    n: int
    subjects: int
    effective: float


@dataclass(frozen=True)
class Verdict:
    """Outcome and limits of a comparison, in the orientation of `Comparison.change`."""

    comparison: Comparison
    low: float
    high: float
    outcome: str
    family: int  # number of comparisons that its limits hold for simultaneously


@dataclass(frozen=True)
class Tested:
    """A family with its critical values for one look and over all looks, and its verdicts."""

    family: Family
    by_look: float
    over_looks: float
    verdicts: tuple[Verdict, ...]
    not_shown: NotShown


def judged(families: Sequence[Family], params: Params, looks: float) -> tuple[Tested, ...]:
    """Judge every comparison; `looks` numbers the looks at these test subjects from 1."""
    tested = []
    for family in families:
        rate = params.error_rate * family.share
        rates = [rate, spent(rate, looks)]
        by_look, over_looks = critical_values(family.change, rates, params.resamples, params.seed)
        look_limits, joint_limits = limits(family, by_look), limits(family, over_looks)
        verdicts = []
        results = outcomes(family, look_limits, joint_limits, params.not_shown)
        for index, (comparison, outcome) in enumerate(
            zip(family.comparisons, results, strict=True)
        ):
            used = joint_limits if outcome == FAIL else look_limits
            low, high = float(used.low[index]), float(used.high[index])
            verdicts.append(Verdict(comparison, low, high, str(outcome), len(family.comparisons)))
        tested.append(Tested(family, by_look, over_looks, tuple(verdicts), params.not_shown))
    return tuple(tested)


class Paired:
    """The paired comparisons of two versions on the compared images."""

    def __init__(self, compared: Compared, params: Params) -> None:
        self.images = compared.images
        self.named = compared.named
        self.members = compared.members
        self.params = params
        self.people = People(self.images["subject_id"])
        self.frozen = (self.images["part"] == FROZEN).to_numpy()

    def families(self, earlier: Mapping[int, pd.Series]) -> tuple[Family, ...]:
        """Return the families that have a comparison, with shares that add up to 1."""
        margins = self.params.margins
        kinds = [self._mean("brier", CALIBRATION, ALL, margins.calibration, False)]
        kinds.append(self._mean(ALL_CHANGES, ROBUSTNESS, ALL_CHANGES, margins.robustness, True))
        recall, new = self._recall(FROZEN), self._recall(NEW)
        # A group whose first test subjects are new is judged on them like any other.
        on_frozen = {ALL, *(one.group for one in recall)}
        recall += [one for one in new if one.group not in on_frozen]
        families = {
            "recall": recall,
            "best": self._best(earlier),
            "new": [one for one in new if one.group in on_frozen],
            "other": [one for one in kinds if one is not None],
        }
        families = {name: members for name, members in families.items() if members}
        total = sum(_SHARES[name] for name in families)
        return tuple(
            Family(tuple(members), _SHARES[name] / total) for name, members in families.items()
        )

    def _mask(self, part: str, named: Named | None) -> np.ndarray:
        """Return which images of a part are in a named group (None: all)."""
        mask = self.frozen if part == FROZEN else ~self.frozen
        return mask if named is None else mask & self.members[named.name]

    def _is_enough(self, mask: np.ndarray) -> bool:
        return is_enough(size_of(self.images["subject_id"][mask]), self.params)

    def _recall(self, part: str) -> list[Comparison]:
        comparisons = []
        correct = [self._values("correct", side) for side in (CHALLENGER, CHAMPION)]
        for named in (None, *self.named):
            mask = self._mask(part, named)
            if not self._is_enough(mask):
                continue
            rule = OVERALL if named is None and part == FROZEN else GROUP
            group = ALL if named is None else named.name
            margin = self.params.margins.overall if named is None else self.params.margins.group
            comparisons.append(self._comparison(rule, part, group, mask, correct, margin, 1.0))
        return comparisons

    def _best(self, earlier: Mapping[int, pd.Series]) -> list[Comparison]:
        """Compare named groups with every former champion, on the images that it predicted."""
        comparisons = []
        correct = self._values("correct", CHALLENGER)
        margin = self.params.margins.group
        for number, answers in sorted(earlier.items()):
            former = self.images["image_id"].map(answers)
            values = [correct, (former == self.images["emotion"]).to_numpy(dtype=float)]
            predicted = former.notna().to_numpy()
            for named in self.named:
                mask = self._mask(FROZEN, named) & predicted
                if self._is_enough(mask):
                    note = f"version {number}"
                    comparisons.append(
                        self._comparison(BEST, FROZEN, named.name, mask, values, margin, 1.0, note)
                    )
        return comparisons

    def _mean(
        self, column: str, rule: str, group: str, margin: float, answered: bool
    ) -> Comparison | None:
        """Compare the mean of a measure of which less is better; None if it is not finite."""
        mask = self.frozen.copy()
        for side in (CHALLENGER, CHAMPION) if answered else ():
            mask &= self.images[f"answer_{side}"].notna().to_numpy()
        values = [self._values(column, side) for side in (CHALLENGER, CHAMPION)]
        if not mask.any() or not all(np.isfinite(value[mask]).all() for value in values):
            return None
        return self._comparison(rule, FROZEN, group, mask, values, margin, -1.0)

    def _comparison(
        self,
        rule: str,
        part: str,
        group: str,
        mask: np.ndarray,
        values: Sequence[np.ndarray],
        margin: float,
        sign: float,
        note: str = "",
    ) -> Comparison:
        """Sum the values of challenger and champion per subject; `sign` is 1 if more is better."""
        new, old = (np.where(mask, value, 0.0) for value in values)
        columns = [sign * (new - old), old, mask]
        change, before, size = self.people.by_person(np.stack(columns, axis=1)).T
        n = mask.sum()
        figures = {"champion": float(old.sum() / n), "challenger": float(new.sum() / n)}
        reach = 2.0 if rule == CALIBRATION else 1.0
        return Comparison(
            rule, part, group, change, before, size, margin, reach=reach, note=note, **figures
        )

    def _values(self, column: str, side: str) -> np.ndarray:
        return self.images[f"{column}_{side}"].to_numpy(dtype=float)


def size_of(subjects: pd.Series) -> Size:
    """Count images, subjects and effective subjects (see `effective_people`)."""
    counts = subjects.value_counts().to_numpy(dtype=float)
    effective = float(effective_people(counts[:, None])[0]) if len(counts) else 0.0
    return Size(int(counts.sum()), len(counts), round(effective, 6))


def is_enough(size: Size, params: Params) -> bool:
    """Return whether a group has enough images and effective subjects to be judged."""
    return size.n >= params.min_n and size.effective >= params.min_subjects - 1e-6
