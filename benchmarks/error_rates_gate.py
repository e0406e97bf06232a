"""Error rates of the gate: equally good versions stopped, and harms caught, at one and 12 passes.

Every cell simulates whole decisions: two versions' answers to each test image, the families of
comparisons, their limits and the outcome. Images differ in difficulty, people in how each version
reads them; two versions disagree about one image in eight. `default params` are those of
params.yaml.

    .venv/bin/python benchmarks/error_rates_gate.py --cohorts 400
"""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from tasks.core.params import load_section
from tasks.gate.compare import ALL_CHANGES, CHALLENGER, CHAMPION, Compared, Named, named_groups
from tasks.gate.decision import FAIL, FROZEN, HELD
from tasks.gate.families import Paired, judged
from tasks.gate.score import KINDS
from tasks.gate.settings import Params

ROOT = Path(__file__).parents[1]
PASSES = 12
BANDS = {"adult": 0.53, "adolescent": 0.18, "child": 0.29}  # shares of the drawn cohort's people
_EACH = 14  # images per person, as in the drawn cohort
_RECALL = 0.8
_DIFFICULTY = 0.55  # of a beta distribution: most images are read right, or wrong, by all versions
_PERSON = 1.0  # standard deviation, in log-odds, of how a version reads one person


@dataclass(frozen=True)
class World:
    """Test images: whose they are, of which band, and how easily they are read (log-odds)."""

    subject: np.ndarray
    band: np.ndarray
    ease: np.ndarray

    def first(self, people: int) -> np.ndarray:
        """Return which images are of the first people."""
        return self.subject < people


Answers = tuple[np.ndarray, np.ndarray]  # right or not, and the margin by which, per image


def cells(cohorts: int = 400, seed: int = 14, quick: bool = False) -> pd.DataFrame:
    """Simulate every cell.

    `cohorts` is the number of simulated test sets per cell of one pass, a quarter as many with
    twelve passes. `quick` simulates only 100 subjects with equally many images, one pass.

    Returns one row per cell: `name, subjects, sizes, passes, loss, group, refused, held, error,
    cohorts`; `error` is the Monte Carlo error of `refused`. With twelve passes, `refused` is the
    share of histories with at least one refusal where nothing is lost, and of the last pass where
    something is; `held` is the mean per pass, or of the last.
    """
    params = load_section(ROOT / "params.yaml", "promote", Params)
    rows = []
    for subjects in (100,) if quick else (33, 100):
        for sizes in ("equal",) if quick else ("equal", "log-normal"):
            for loss, group in ((0.0, "child"), (0.05, "child"), (0.08, "child"), (0.08, "adult")):
                rng = np.random.default_rng([seed, subjects, len(sizes), int(100 * loss)])
                rows.append(_one_pass(params, subjects, sizes, loss, group, cohorts, rng))
            for fresh in () if quick else (0.0, 0.1):
                rng = np.random.default_rng([seed, subjects, len(sizes), 1000 + int(100 * fresh)])
                few = max(cohorts // 4, 1)
                rows += _twelve_passes(params, subjects, sizes, fresh, few, rng)
    return pd.DataFrame(rows)


def world(people: int, sizes: str, rng: np.random.Generator) -> World:
    """Draw test people with their images."""
    each = np.full(people, _EACH)
    if sizes != "equal":
        drawn = rng.lognormal(0.0, 1.0, people) / np.exp(0.5) * _EACH
        each = np.maximum(1, np.rint(drawn)).astype(int)
    subject = np.repeat(np.arange(people), each)
    # Bands alternate, so that the first people of a test set that grows have the same mix.
    edges = np.cumsum(list(BANDS.values()))
    place = np.minimum(np.searchsorted(edges, (np.arange(people) * 0.618034) % 1), len(BANDS) - 1)
    alpha, beta = _RECALL * _DIFFICULTY, (1 - _RECALL) * _DIFFICULTY
    ease = logit(np.clip(rng.beta(alpha, beta, len(subject)), 1e-6, 1 - 1e-6))
    return World(subject, np.array(list(BANDS), dtype=object)[place][subject], ease)


def version(
    test_set: World, rng: np.random.Generator, loss: float = 0.0, group: str = "child"
) -> Answers:
    """Draw a version's answers; all versions are equally good but for a loss in a group."""
    people = rng.normal(0.0, _PERSON, test_set.subject.max() + 1)
    margin = test_set.ease + people[test_set.subject] + rng.logistic(size=len(test_set.ease))
    spoilt = (test_set.band == group) & (rng.random(len(margin)) < loss / _RECALL)
    margin = np.where(spoilt, -np.abs(margin), margin)
    return margin > 0, margin


def outcome(
    test_set: World,
    used: np.ndarray,
    new: Answers,
    old: Answers,
    earlier: Mapping[int, Answers],
    params: Params,
    looks: float,
) -> str:
    """Return what the gate decides: `fail`, `held` or `pass`."""
    images: dict[str, Any] = {
        "image_id": np.flatnonzero(used),
        "subject_id": test_set.subject[used],
        "emotion": True,
        "part": FROZEN,
        "age_band": test_set.band[used],
    }
    for side, (right, margin) in ((CHALLENGER, new), (CHAMPION, old)):
        images[f"answer_{side}"] = True
        images[f"correct_{side}"] = right[used]
        images[f"brier_{side}"] = 7 / 6 * expit(-margin[used]) ** 2
        for kind in (ALL_CHANGES, *KINDS):
            images[f"{kind}_{side}"] = 0.3 * expit(-np.abs(margin[used]))
    table = pd.DataFrame(images)
    named = named_groups(params.protected, {})
    compared = _compared(table, named)
    earlier_answers = {
        number: pd.Series(right[used], index=table["image_id"])
        for number, (right, _) in earlier.items()
    }
    tests = judged(Paired(compared, params).families(earlier_answers), params, looks)
    found = {one.outcome for test in tests for one in test.verdicts}
    return FAIL if FAIL in found else HELD if HELD in found else "pass"


def _compared(table: pd.DataFrame, named: tuple[Named, ...]) -> Compared:
    return Compared(
        images=table,
        sides=(CHALLENGER, CHAMPION),
        counts={},
        groups=(),
        named=named,
        members={one.name: one.rows(table).to_numpy() for one in named},
        in_data=dict.fromkeys((one.name for one in named), True),
        lost={},
    )


def _one_pass(
    params: Params,
    subjects: int,
    sizes: str,
    loss: float,
    group: str,
    cohorts: int,
    rng: np.random.Generator,
) -> dict[str, Any]:
    found = []
    for _ in range(cohorts):
        test_set = world(subjects, sizes, rng)
        new, old = version(test_set, rng, loss, group), version(test_set, rng)
        found.append(outcome(test_set, test_set.first(subjects), new, old, {}, params, 1.0))
    what = f"loss of {100 * loss:.0f} points in {group}" if loss else "equally good"
    refused, held = (np.mean([one == name for one in found]) for name in (FAIL, HELD))
    return _row(what, subjects, sizes, 1, loss, group, float(refused), float(held), cohorts)


def _twelve_passes(
    params: Params,
    subjects: int,
    sizes: str,
    fresh: float,
    cohorts: int,
    rng: np.random.Generator,
) -> Iterator[dict[str, Any]]:
    """Judge twelve equally good versions one after the other, and at the end one that is not.

    Whoever passes or waits comes into use; the test people of later passes are those of the first
    and, where there are fresh ones, those who joined until then.
    """
    ever, held, caught, both, last_held = [], [], [], [], []
    for _ in range(cohorts):
        test_set = world(subjects + round(PASSES * fresh * subjects), sizes, rng)
        champion = version(test_set, rng)
        used, seen = {0: champion}, np.zeros(test_set.subject.max() + 1)
        refused = 0
        for turn in range(1, PASSES + 1):
            people = subjects + round((turn - 1) * fresh * subjects)
            looks = 1.0 + float(seen[:people].mean())
            inside = test_set.first(people)
            earlier = {number: one for number, one in used.items() if one is not champion}
            if turn == PASSES:
                bad = version(test_set, rng, 0.08)
                what = outcome(test_set, inside, bad, champion, earlier, params, looks)
                caught.append(what == FAIL)
                last_held.append(what == HELD)
                both.append(looks)
            new = version(test_set, rng)
            what = outcome(test_set, inside, new, champion, earlier, params, looks)
            seen[:people] += 1
            refused += what == FAIL
            held.append(what == HELD)
            if what != FAIL:
                champion = new
                used[turn] = new
        ever.append(refused > 0)
    more = f", {fresh:.0%} fresh people a pass" if fresh else ", the same people"
    yield _row(
        f"equally good, any of {PASSES} passes{more}",
        subjects,
        sizes,
        PASSES,
        0.0,
        "child",
        float(np.mean(ever)),
        float(np.mean(held)),
        cohorts,
    )
    yield _row(
        f"loss of 8 points in child at pass {PASSES} (look {np.mean(both):.1f}){more}",
        subjects,
        sizes,
        PASSES,
        0.08,
        "child",
        float(np.mean(caught)),
        float(np.mean(last_held)),
        cohorts,
    )


def _row(
    name: str,
    subjects: int,
    sizes: str,
    passes: int,
    loss: float,
    group: str,
    refused: float,
    held: float,
    cohorts: int,
) -> dict[str, Any]:
    error = float(np.sqrt(max(refused * (1 - refused), 0.5 / cohorts) / cohorts))
    return {
        "name": name,
        "subjects": subjects,
        "sizes": sizes,
        "passes": passes,
        "loss": loss,
        "group": group,
        "refused": round(refused, 4),
        "held": round(held, 4),
        "error": round(error, 4),
        "cohorts": cohorts,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cohorts", type=int, default=400)
    parser.add_argument("--seed", type=int, default=14)
    given = parser.parse_args()
    with pd.option_context(
        "display.width", 200, "display.max_colwidth", 80, "display.max_rows", 99
    ):
        print(cells(given.cohorts, given.seed).to_string(index=False))
