"""Made-up test pictures and answers of models whose harm is known."""

import numpy as np
import pandas as pd

from tasks.core.labels import EMOTIONS
from tasks.gate.decide import decide
from tasks.gate.decision import Contender
from tasks.gate.score import FLIPS, KINDS, Scores
from tasks.gate.settings import Params

SHOWN = EMOTIONS[:7]
USUAL = {
    "by": ["age_band", "gender"],
    "min_n": 20,
    "min_subjects": 5,
    "protected": [{"age_band": ["child"]}, {"age_band": ["adult"]}],
    "error_rate": 0.1,
    "not_shown": "promote",
    "not_judged": "wait",
    "confidence": 0.95,
    "resamples": 100,
    "seed": 7,
    "margins": {
        "overall": 0.03,
        "group": 0.06,
        "calibration": 0.05,
        "robustness": 0.05,
    },
    "absolute_limits": {"overall": 0.5, "worst_group": 0.3, "calibration": 0.8, "robustness": 0.35},
    "perturbations": {"brightness": 0.2, "shift": 0.03, "jpeg_quality": 50},
    "require_approval": False,
    "device": "cpu",
    "batch_size": 8,
}
SEEN = pd.DataFrame({"subject_id": ["set/trained"]})


def images(people=10, each=10, batch="") -> pd.DataFrame:
    """The split table: `people` in every group, each with `each` test pictures; and one trained."""
    rows = []
    for band in ("adult", "child"):
        for gender in ("female", "male"):
            for person in range(people):
                name = f"set/{batch}{band}-{gender}-{person}"
                for shot in range(each):
                    rows.append((name, band, gender, SHOWN[(person + shot) % 7], "test"))
    rows.append(("set/trained", "infant", "female", "anger", "train"))
    table = pd.DataFrame(rows, columns=["subject_id", "age_band", "gender", "emotion", "split"])
    ids = [f"{batch}{place:04d}" for place in range(len(table))]
    return table.assign(image_id=ids, subject_known=True, dataset="drawn", batch=batch)


def answers(table, right=0.7, seed=1, spoilt=None, sure=0.8, flips=0.1, labels=SHOWN) -> Scores:
    """Answers that are right for a share of the pictures; for none of those in `spoilt`.

    The same seed is right about the same pictures, so that two models differ in `spoilt` alone.
    """
    test = table[table["split"] == "test"]
    rng = np.random.default_rng(seed)
    correct = rng.random(len(test)) < right
    if spoilt is not None:
        correct &= ~spoilt(test).to_numpy()
    other = {name: labels[(place + 1) % len(labels)] for place, name in enumerate(labels)}
    said = test["emotion"].where(correct, test["emotion"].map(other))
    said = said.where(said.isin(labels), labels[0])  # a label that it lacks is read as another
    probabilities = {
        f"p_{name}": np.where(said == name, sure, (1 - sure) / (len(labels) - 1)) for name in labels
    }
    moved = {f"{FLIPS}{kind}": np.full(len(test), flips) for kind in KINDS}
    found = {"image_id": test["image_id"].to_numpy(), "y_pred": said.to_numpy()}
    return Scores(tuple(labels), pd.DataFrame(found | probabilities | moved))


def params(**changed) -> Params:
    return Params.model_validate(USUAL | changed)


def judge(
    table,
    challenger,
    champion=None,
    frozen=None,
    seen=SEEN,
    champion_seen=SEEN,
    earlier=None,
    needed=None,
    looks=1.0,
    **changed,
):
    """Judge version 2 against version 1 (None: it is the first); all test pictures are frozen."""
    new = (Contender(2, "b" * 12, "run-2"), challenger, seen)
    old = champion and (Contender(1, "a" * 12, "run-1"), champion, champion_seen)
    ids = table["image_id"][table["split"] == "test"] if frozen is None else frozen
    return decide(table, ids, new, old, params(**changed), earlier or {}, needed, looks)


def rule(decision, name, group="all", part="frozen") -> pd.Series:
    table = decision.table
    rows = table[(table["rule"] == name) & (table["group"] == group) & (table["part"] == part)]
    assert len(rows) == 1, rows
    return rows.iloc[0]
