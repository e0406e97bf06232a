"""The comparisons that can stop a version: few, named in advance, in families with joint limits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tasks.core.statistics.people import People
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

# Parts of the error rate. Recall of the named groups gets nearly all: a harm to the others is
# either also one to these, or so large that it is seen at a small rate (decision 0010).
_SHARES = {"recall": 16.0, "best": 2.0, "new": 1.0, "other": 1.0}
RECALL_SHARE = 16.0 / 20.0  # where all of them have comparisons


@dataclass(frozen=True)
class Size:
    """How many pictures and people a comparison has, and as how many people they count."""

    n: int
    subjects: int
    effective: float


@dataclass(frozen=True)
class Verdict:
    """What came of a comparison, with the limits that it rests on, as in `Comparison.change`."""

    comparison: Comparison
    low: float
    high: float
    outcome: str
    family: int  # how many comparisons its limits hold for at once


@dataclass(frozen=True)
class Tested:
    """A family, the critical values of one look and of all looks, and its verdicts."""

    family: Family
    by_look: float
    over_looks: float
    verdicts: tuple[Verdict, ...]
    not_shown: NotShown


def judged(families: Sequence[Family], params: Params, looks: float) -> tuple[Tested, ...]:
    """Judge every comparison.

    Parameters
    ----------
    families
        Shares of the error rate are theirs.
    params
        Of them: error_rate, not_shown, resamples, seed.
    looks
        Which look at these test people it is, from 1 on.
    """
    found = []
    for family in families:
        rate = params.error_rate * family.share
        rates = [rate, spent(rate, looks)]
        by_look, over_looks = critical_values(family.change, rates, params.resamples, params.seed)
        one, every = limits(family, by_look), limits(family, over_looks)
        verdicts = []
        for place, outcome in enumerate(outcomes(family, one, every, params.not_shown)):
            own = every if outcome == FAIL else one
            low, high = float(own.low[place]), float(own.high[place])
            comparison = family.comparisons[place]
            verdicts.append(Verdict(comparison, low, high, str(outcome), len(family.comparisons)))
        found.append(Tested(family, by_look, over_looks, tuple(verdicts), params.not_shown))
    return tuple(found)


class Paired:
    """The paired comparisons of two versions on the compared pictures.

    Parameters
    ----------
    compared
        Both versions' answers.
    params
        The section `promote`.
    """

    def __init__(self, compared: Compared, params: Params) -> None:
        self.pictures = compared.pictures
        self.named = compared.named
        self.members = compared.members
        self.params = params
        self.people = People(self.pictures["subject_id"])
        self.frozen = (self.pictures["part"] == FROZEN).to_numpy()

    def families(self, earlier: Mapping[int, pd.Series]) -> tuple[Family, ...]:
        """Return the families that have a comparison, with shares that add up to 1."""
        margins = self.params.margins
        kinds = [self._mean("brier", CALIBRATION, ALL, margins.calibration, False)]
        kinds.append(self._mean(ALL_CHANGES, ROBUSTNESS, ALL_CHANGES, margins.robustness, True))
        recall, new = self._recall(FROZEN), self._recall(NEW)
        # A group whose first test people have just come is judged on them like any other.
        known = {ALL, *(one.group for one in recall)}
        recall += [one for one in new if one.group not in known]
        found = {
            "recall": recall,
            "best": self._best(earlier),
            "new": [one for one in new if one.group in known],
            "other": [one for one in kinds if one is not None],
        }
        whole = sum(_SHARES[name] for name, own in found.items() if own)
        return tuple(
            Family(tuple(own), _SHARES[name] / whole) for name, own in found.items() if own
        )

    def inside(self, part: str, named: Named | None) -> np.ndarray:
        """Return which pictures of a part are in a named group (None: all)."""
        own = self.frozen if part == FROZEN else ~self.frozen
        return own if named is None else own & self.members[named.name]

    def size(self, which: np.ndarray) -> Size:
        """Count pictures and people."""
        return size_of(self.pictures["subject_id"][which])

    def is_enough(self, size: Size) -> bool:
        """Whether a group can be judged."""
        return is_enough(size, self.params)

    def _recall(self, part: str) -> list[Comparison]:
        found = []
        for named in (None, *self.named):
            which = self.inside(part, named)
            if not self.is_enough(self.size(which)):
                continue
            rule = OVERALL if named is None and part == FROZEN else GROUP
            group = ALL if named is None else named.name
            margin = self.params.margins.overall if named is None else self.params.margins.group
            right = [self._values("correct", side) for side in (CHALLENGER, CHAMPION)]
            found.append(self._comparison(rule, part, group, which, right, margin, 1.0))
        return found

    def _best(self, earlier: Mapping[int, pd.Series]) -> list[Comparison]:
        """Compare named groups with every version once in use, on the pictures that it has read."""
        found = []
        correct = self._values("correct", CHALLENGER)
        for number, answers in sorted(earlier.items()):
            said = self.pictures["image_id"].map(answers)
            right = (said == self.pictures["emotion"]).to_numpy(dtype=float)
            read = said.notna().to_numpy()
            for named in self.named:
                which = self.inside(FROZEN, named) & read
                if not self.is_enough(self.size(which)):
                    continue
                margin = self.params.margins.group
                found.append(
                    self._comparison(
                        BEST,
                        FROZEN,
                        named.name,
                        which,
                        [correct, right],
                        margin,
                        1.0,
                        f"version {number}",
                    )
                )
        return found

    def _mean(
        self, column: str, rule: str, group: str, margin: float, answered: bool
    ) -> Comparison | None:
        """Compare the mean of a figure of which less is better."""
        which = self.frozen.copy()
        for side in (CHALLENGER, CHAMPION) if answered else ():
            which &= self.pictures[f"answer_{side}"].notna().to_numpy()
        values = [self._values(column, side) for side in (CHALLENGER, CHAMPION)]
        if not which.any() or not all(np.isfinite(own[which]).all() for own in values):
            return None
        return self._comparison(rule, FROZEN, group, which, values, margin, -1.0)

    def _comparison(
        self,
        rule: str,
        part: str,
        group: str,
        which: np.ndarray,
        values: Sequence[np.ndarray],
        margin: float,
        better: float,
        note: str = "",
    ) -> Comparison:
        new, old = (np.where(which, own, 0.0) for own in values)
        columns = [better * (new - old), old, which]
        change, before, size = self.people.by_person(np.stack(columns, axis=1)).T
        n = which.sum()
        figures = {"champion": float(old.sum() / n), "challenger": float(new.sum() / n)}
        reach = 2.0 if rule == CALIBRATION else 1.0
        return Comparison(
            rule, part, group, change, before, size, margin, reach=reach, note=note, **figures
        )

    def _values(self, column: str, side: str) -> np.ndarray:
        return self.pictures[f"{column}_{side}"].to_numpy(dtype=float)


def size_of(subjects: pd.Series) -> Size:
    """Count pictures, people, and people of equally many pictures that tell as much."""
    counts = subjects.value_counts().to_numpy(dtype=float)
    effective = float(effective_people(counts[:, None])[0]) if len(counts) else 0.0
    return Size(int(counts.sum()), len(counts), round(effective, 6))


def is_enough(size: Size, params: Params) -> bool:
    """Whether a group has enough pictures and effective people to be judged."""
    return size.n >= params.min_n and size.effective >= params.min_subjects - 1e-6
