"""Simulated false alarms and power of intersections and of the logistic model's odds ratios.

Part of `error_rates.py` (`--part intersections --part odds-ratios`). Subjects lie in two age bands
and two genders; a person's skill is drawn from a beta distribution with an intra-class correlation.
A false alarm of intersections is a cohort in which any group's adjusted p-value is below .05
although nobody differs; power is how often the planted group (male children, 20 points worse) is
found. For odds ratios, few subjects of one level stand against many of the other.
"""

import warnings
from typing import Any

import numpy as np
from scipy.stats import t

from tasks.audit.measures.clustered_logistic import fit_clustered
from tasks.audit.measures.max_t import Against, max_t_tests

IMAGES = 14
SIZES = ("equal", "log-normal", "dominant")
# Subjects of female children, male children, female adults, male adults.
COHORTS = {"8+8": (8, 8, 8, 8), "15+15": (15, 15, 15, 15), "8+60": (8, 8, 60, 60)}
CELLS: list[dict[str, Any]] = [
    {"sizes": sizes, "subjects": subjects, "icc": icc, "recall": recall}
    for sizes in SIZES
    for subjects in COHORTS
    for icc, recall in ((0.0, 0.5), (0.3, 0.9), (0.6, 0.9), (0.3, 0.99))
]


def image_counts(rng: np.random.Generator, sizes: str, subjects: tuple[int, ...]) -> np.ndarray:
    """Draw how many images each subject has."""
    total = sum(subjects)
    if sizes == "equal":
        return np.full(total, IMAGES)
    if sizes == "log-normal":
        return np.maximum(1, np.rint(IMAGES * rng.lognormal(-0.5, 1.0, total))).astype(int)
    counts = np.full(total, IMAGES)
    starts = np.cumsum([0, *subjects[:-1]])
    counts[starts[1]] = IMAGES * (subjects[1] - 1)  # one of the male children has half of them
    return counts


def cohort(
    rng: np.random.Generator, sizes: str, subjects: str, icc: float, recall: float, gap: float = 0.0
) -> Against:
    """Draw a cohort whose male children are read `gap` worse than everybody else."""
    of_cell = COHORTS[subjects]
    cell = np.repeat(np.arange(4), of_cell)
    n = image_counts(rng, sizes, of_cell)
    mean = np.where(cell == 1, recall - gap, recall)
    skill = mean
    if icc > 0:
        strength = (1 - icc) / icc
        skill = rng.beta(mean * strength, (1 - mean) * strength)
    correct = rng.binomial(n, skill)
    subject, correct = np.arange(len(n)), correct.astype(float)
    n = n.astype(float)
    return Against(subject, cell, n, correct, n[:, None], correct[:, None], np.zeros(4, dtype=int))


def called_different(
    cohorts: int, seed: int, gap: float = 0.0, draws: int = 399, **cell: Any
) -> np.ndarray:
    """Return in which cohorts any group is called different (no gap), or the planted one is."""
    rng = np.random.default_rng(seed)
    found = np.zeros(cohorts, dtype=bool)
    for number in range(cohorts):
        tests = max_t_tests(cohort(rng, gap=gap, **cell), 0.95, draws, number)
        called = tests["p_adjusted"].to_numpy() < 0.05
        found[number] = called[1] if gap else called.any()
    return found


# Few and many subjects, numbers of images (dominant: one of the few has half), ICC, recall.
LEVELS: list[tuple[int, int, str, float, float]] = [
    (5, 60, "equal", 0.0, 0.7),
    (5, 60, "equal", 0.3, 0.7),
    (8, 60, "equal", 0.3, 0.9),
    (8, 60, "log-normal", 0.3, 0.7),
    (8, 60, "dominant", 0.3, 0.7),
    (8, 8, "dominant", 0.3, 0.7),
    (15, 15, "dominant", 0.3, 0.7),
    (30, 30, "log-normal", 0.3, 0.7),
]


def odds_ratios_shown(
    cohorts: int, seed: int, few: int, many: int, sizes: str, icc: float, recall: float
) -> np.ndarray:
    """Return in which cohorts the odds ratio of a level of few subjects has p < .05; it is 1."""
    rng = np.random.default_rng(seed)
    level = (np.arange(few + many) < few).astype(float)
    found = []
    while len(found) < cohorts:
        n = image_counts(rng, "equal" if sizes == "dominant" else sizes, (few, many))
        if sizes == "dominant":
            n[0] = IMAGES * (few - 1)
        subject = np.repeat(np.arange(few + many), n)
        strength = (1 - icc) / icc if icc else np.inf
        skill = np.full(few + many, recall)
        if icc:
            skill = rng.beta(recall * strength, (1 - recall) * strength, few + many)
        outcome = (rng.random(len(subject)) < skill[subject]).astype(float)
        other = (rng.random(few + many) < 0.5)[subject].astype(float)
        columns = np.column_stack([np.ones(len(subject)), level[subject], other])
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            fit = fit_clustered(outcome, columns, subject)
        if fit is None or abs(fit.coefficients[1]) > 10:  # all right in one level: not tested
            found.append(False)
            continue
        ratio = abs(fit.coefficients[1] / fit.errors[1])
        found.append(bool(2 * t.sf(ratio, fit.freedom[1]) < 0.05))
    return np.array(found)
