"""Who is drawn and which pictures there are of each: the plan of the cohort.

Every number that a picture needs comes from a generator of its own, seeded by what the picture
is: so pictures do not depend on each other, on their order or on the number of workers. Cohorts
have blocks of subject numbers, so that more subjects in one leave the others as they are.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tasks.core.labels import EMOTIONS
from tasks.draw.names import PictureName

Cohort = Literal["child", "adolescent", "adult"]

# Ages in years that are drawn, both included, and the first subject number.
COHORTS: Mapping[Cohort, tuple[tuple[int, int], int]] = {
    "child": ((3, 9), 1),
    "adolescent": ((10, 17), 3001),
    "adult": ((18, 60), 6001),
}
MOST_SUBJECTS = 3000  # a cohort

_GOLDEN = (5**0.5 - 1) / 2
_IDENTITY, _PICTURE = 0, 1  # separate the two uses of the seed


@dataclass(frozen=True)
class Sitting:
    """One picture to draw: its name, its cohort and its subject's number."""

    name: PictureName
    cohort: Cohort
    number: int


def plan_sittings(
    subjects: Mapping[Cohort, int], emotions: Sequence[str], takes: int
) -> Iterator[Sitting]:
    """Yield every picture to draw, by subject number, then emotion, then take.

    Parameters
    ----------
    subjects
        Cohort name to number of subjects; half are recorded female, half male.
    emotions
        What every subject shows.
    takes
        Pictures a subject and emotion.
    """
    for cohort, ((youngest, oldest), first) in COHORTS.items():
        for index in range(subjects.get(cohort, 0)):
            number = first + index
            # Ages fill the span evenly whatever the number, each as often female as male.
            place = (index // 2 + 0.5) * _GOLDEN % 1
            age = youngest + int(place * (oldest - youngest + 1))
            gender = "female" if index % 2 == 0 else "male"
            for emotion in emotions:
                for take in range(1, takes + 1):
                    name = PictureName(f"D{number:04d}", age, gender, emotion, take)
                    yield Sitting(name, cohort, number)


def identity_rng(seed: int, number: int) -> np.random.Generator:
    """Return the generator of a subject's looks."""
    return np.random.default_rng(np.random.SeedSequence((seed, _IDENTITY, number)))


def picture_rng(seed: int, number: int, emotion: str, take: int) -> np.random.Generator:
    """Return the generator of one picture."""
    key = (seed, _PICTURE, number, EMOTIONS.index(emotion), take)
    return np.random.default_rng(np.random.SeedSequence(key))
