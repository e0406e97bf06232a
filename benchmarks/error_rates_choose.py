"""Error rates of `choose`: base replaced by a worse strategy, or a better one missed.

Simulates the answers of the base model and five strategies about validation images of children,
adolescents and adults, and calls the decision of the stage `choose`. An answer is right where a
normal variable lies below the quantile of the true recall; it is a sum of what a subject and an
image do for every model (.6 of its variance) and of what they do for one model alone (.4), so that
models agree as fine-tuned copies of one network do. With several epochs, a strategy's epochs share
half of that last part, and each strategy is its best epoch by the worst group, which the decision
knows from the history. `old` is the rule without a margin: the highest worst group wins.

    .venv/bin/python benchmarks/error_rates_choose.py [TRIALS]
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from tasks.core.params import load_yaml
from tasks.core.statistics.selection import Choice, choose_over_incumbent, worst_scores

IMAGES, EMOTIONS, STRATEGIES = 14, 7, 5  # images of each subject
OLDER = ((6, 0.93), (16, 0.97))  # subjects and base recall of adolescents and adults
SHARED = (0.2, 0.4)  # variance of subjects and images for every model
OWN = (0.1, 0.3)  # the same for one model alone
RESAMPLES = 400
_ANY = -1e9  # standard errors that every strategy exceeds
PARAMS = load_yaml(Path(__file__).parents[1] / "params.yaml")["choose"]


@dataclass(frozen=True)
class Cell:
    """Children whom base reads with a recall, and how much better every strategy truly is."""

    children: int
    recall: float
    better: float
    epochs: int

    @property
    def name(self) -> str:
        """Return the row's name in the table of error rates."""
        epochs = f", best of {self.epochs} epochs" if self.epochs > 1 else ""
        return (
            f"{STRATEGIES} strategies truly {100 * self.better:+.0f} points{epochs}, "
            f"{self.children} children"
        )

    def recalls(self) -> np.ndarray:
        """Return `(models, groups)` true recalls, base first; older groups gain nothing."""
        base = np.array([self.recall, *(recall for _, recall in OLDER)])
        other = base + np.array([self.better, *[min(self.better, 0.0)] * len(OLDER)])
        return np.array([base, *[other] * STRATEGIES])


CELLS = (
    Cell(10, 0.8, -0.02, 1),
    Cell(10, 0.8, -0.02, 5),
    Cell(10, 0.6, 0.0, 1),
    Cell(10, 0.6, 0.0, 5),
    Cell(3, 0.8, -0.02, 5),
    Cell(10, 0.6, 0.1, 5),
    Cell(10, 0.6, 0.2, 5),
    Cell(5, 0.6, 0.2, 5),
    Cell(10, 0.55, 0.35, 5),
)


@dataclass(frozen=True)
class Trial:
    """One validation split: whether base is replaced, and how good the chosen one looks."""

    replaced: bool
    replaced_by_highest: bool
    too_good: float
    optimism: float


def trial(cell: Cell, rng: np.random.Generator, standard_errors: float | None = None) -> Trial:
    """Simulate one choice; None: with the project's own `choose.standard_errors`."""
    rule = PARAMS["standard_errors"] if standard_errors is None else standard_errors
    people = (cell.children, *(count for count, _ in OLDER))
    group = np.repeat(np.arange(len(people)), people)
    subject = np.repeat(np.arange(len(group)), IMAGES)
    classes = np.tile(np.arange(EMOTIONS), len(subject) // EMOTIONS)
    groups = np.eye(len(people), dtype=bool)[group[subject]]
    recalls = cell.recalls()
    answers = _answers(recalls[:, group[subject]], subject, cell.epochs, rng)
    by_epoch = np.array([_worst(model, classes, groups) for model in answers])
    best = by_epoch.argmax(axis=1)
    best[0] = 0  # base is one model
    correct = answers[np.arange(len(answers)), best].T
    seed = int(rng.integers(2**31))
    scores = worst_scores(correct, classes, groups, pd.Series(subject), RESAMPLES, seed)
    tried = [[], *(list(scores_) if cell.epochs > 1 else [] for scores_ in by_epoch[1:])]
    decided = choose_over_incumbent(scores, rule, tried)
    among = decided if decided.chosen else choose_over_incumbent(scores, _ANY, tried)
    return Trial(
        decided.chosen > 0,
        bool(scores.observed[1:].max() > scores.observed[0]),
        _too_good(among, recalls),
        among.optimism,
    )


def _too_good(choice: Choice, recalls: np.ndarray) -> float:
    return float(choice.observed[choice.chosen] - recalls[choice.chosen].min())


def _answers(
    recalls: np.ndarray, subject: np.ndarray, epochs: int, rng: np.random.Generator
) -> np.ndarray:
    """Return `(models, epochs, images)` booleans; `recalls` is `(models, images)`."""

    def noise(variances: tuple[float, float], *shape: int) -> np.ndarray:
        by_subject = rng.normal(size=(*shape, subject.max() + 1))[..., subject]
        by_image = rng.normal(size=(*shape, len(subject)))
        return np.sqrt(variances[0]) * by_subject + np.sqrt(variances[1]) * by_image

    models = len(recalls)
    model_noise = noise(OWN, models, 1)
    if epochs > 1:
        model_noise = np.sqrt(0.5) * model_noise + np.sqrt(0.5) * noise(OWN, models, epochs)
    return np.asarray(noise(SHARED) + model_noise < norm.ppf(recalls)[:, None, :])


def _worst(correct: np.ndarray, classes: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return `(epochs,)` the mean recall over emotions of the worst group."""
    cells = groups[:, :, None] & (classes[:, None, None] == np.arange(EMOTIONS))
    flat = cells.reshape(len(classes), -1).astype(float)
    recalls = correct @ flat / flat.sum(axis=0)
    return np.asarray(recalls.reshape(len(correct), *cells.shape[1:]).mean(axis=2).min(axis=1))


def cells(trials: int = 1000, seed: int = 14) -> Iterator[dict[str, Any]]:
    """Yield rows `part, name, rate, trials, error`; the error is the Monte Carlo one.

    A rate is how often base is replaced: false alarms where no strategy is better, power where all
    are. Rows named "too good" are points by which the chosen strategy's worst group looks better
    than it is, as observed and as corrected.
    """
    for cell in CELLS:
        rng = np.random.default_rng(seed)
        found = pd.DataFrame([vars(trial(cell, rng)) for _ in range(trials)]).astype(float)
        found["corrected"] = found["too_good"] - found["optimism"]
        columns = {
            "base replaced": "replaced",
            "base replaced, old rule": "replaced_by_highest",
            "chosen looks too good by": "too_good",
            "chosen, corrected, looks too good by": "corrected",
        }
        for name, column in columns.items():
            yield {
                "part": "choose",
                "name": f"{cell.name}: {name}",
                "rate": float(found[column].mean()),
                "trials": trials,
                "error": float(found[column].std(ddof=1) / np.sqrt(trials)),
            }


if __name__ == "__main__":
    for row in cells(int(sys.argv[1]) if len(sys.argv) > 1 else 1000):
        print(f"{row['name']}: {row['rate']:.3f} ± {row['error']:.3f}", flush=True)
