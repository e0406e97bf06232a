"""Coverage of the interval of a score, with variation between subjects and seeds."""

import numpy as np
import pandas as pd
import pytest
from study_world import settings

from tasks.study.results import mean_recall_score

EMOTIONS = 6


def studies(people, seeds, seed_sd, number):
    """Yield images and correctness of studies with independent subjects, images and seeds."""
    emotion = np.tile(np.arange(EMOTIONS), 2 * people)
    person = np.repeat(np.arange(people), 2 * EMOTIONS)
    columns = {"emotion": emotion.astype(str), "subject_id": person, "subject_known": True}
    images = pd.DataFrame({**columns, "image_id": np.arange(len(emotion))})
    for study in range(number):
        rng = np.random.default_rng(study)
        ease = np.linspace(-0.5, 1.5, EMOTIONS)[emotion] + rng.normal(0, 0.7, len(emotion))
        ease = ease + rng.normal(0, 0.8, people)[person]
        effect = rng.normal(0, seed_sd, seeds) + rng.normal(0, seed_sd, (EMOTIONS, seeds))[emotion]
        yield images, ease[:, None] + effect + rng.normal(0, 0.8, (len(emotion), seeds)) > 0


def coverage(people, seeds, seed_sd, number):
    """Return the coverage of the interval, and of one from subjects only."""
    truth = np.mean([right.mean() for _, right in studies(400, 3, seed_sd, 100)])
    held, of_people = [], []
    for images, right in studies(people, seeds, seed_sd, number):
        score = mean_recall_score(images, right, settings(resamples=300))
        held.append(score.ci_low <= truth <= score.ci_high)
        of_people.append(abs(score.mean - truth) <= 1.96 * score.people_se)
    return np.mean(held), np.mean(of_people)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    held, of_people = coverage(people=20, seeds=3, seed_sd=0.3, number=150)
    assert 0.88 <= held <= 0.99, held
    assert of_people < held - 0.05, "seeds are part of what an interval has to know"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("people", "seeds", "seed_sd"), [(15, 3, 0.3), (34, 3, 0.05), (34, 5, 0.3)]
)
def test_coverage_of_more_designs(people, seeds, seed_sd):
    held, _ = coverage(people, seeds, seed_sd, number=400)
    assert 0.92 <= held <= 0.98, held
