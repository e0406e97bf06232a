"""Plan of the drawn cohort: its subjects and their images.

Every image has its own random generator, seeded by subject, emotion and take. Images therefore
depend neither on each other nor on their order or the number of workers. Each cohort has its own
block of subject numbers, so that adding subjects to one does not change the others.

File names of drawn images.

`D0042_a05_f_happiness_1.jpg`: subject (`D` and 4 digits), age in whole years (2 digits), gender as
recorded (`f` or `m`), emotion, and take, counted from 1.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tasks.core.labels import EMOTIONS

_GENDER_LETTERS = {"female": "f", "male": "m"}
Cohort = Literal["child", "adolescent", "adult"]

# Youngest and oldest age in years, and the first subject number.
COHORTS: Mapping[Cohort, tuple[tuple[int, int], int]] = {
    "child": ((3, 9), 1),
    "adolescent": ((10, 17), 3001),
    "adult": ((18, 60), 6001),
}
MAX_SUBJECTS = 3000  # per cohort
_GOLDEN = (5**0.5 - 1) / 2
_IDENTITY, _IMAGE = 0, 1  # separate the two uses of the seed


@dataclass(frozen=True)
class ImageName:
    """The parts of a drawn image's file name; gender is female or male."""

    subject: str
    age_years: int
    gender: str
    emotion: str
    take: int

    @property
    def stem(self) -> str:
        """Return the name without its suffix, the key of the image's ground truth."""
        letter = _GENDER_LETTERS[self.gender]
        return f"{self.subject}_a{self.age_years:02d}_{letter}_{self.emotion}_{self.take}"

    @property
    def file_name(self) -> str:
        """Return the name with its suffix."""
        return f"{self.stem}.jpg"


@dataclass(frozen=True)
class RenderSpec:
    """One image to draw; `number` is that of its subject."""

    name: ImageName
    cohort: Cohort
    number: int


def plan_images(
    subjects: Mapping[Cohort, int], emotions: Sequence[str], takes: int
) -> Iterator[RenderSpec]:
    """Yield every image to draw, by subject number, then emotion, then take.

    `subjects` maps a cohort to its number of subjects, half of them female. `takes` is the number
    of images per subject and emotion.
    """
    for cohort, ((youngest, oldest), first) in COHORTS.items():
        for index in range(subjects.get(cohort, 0)):
            number = first + index
            # Golden-ratio steps cover the ages evenly for any number of subjects, in both genders.
            share = (index // 2 + 0.5) * _GOLDEN % 1
            age = youngest + int(share * (oldest - youngest + 1))
            gender = "female" if index % 2 == 0 else "male"
            for emotion in emotions:
                for take in range(1, takes + 1):
                    name = ImageName(f"D{number:04d}", age, gender, emotion, take)
                    yield RenderSpec(name, cohort, number)


def identity_rng(seed: int, number: int) -> np.random.Generator:
    """Return the random generator of a subject's appearance."""
    return np.random.default_rng(np.random.SeedSequence((seed, _IDENTITY, number)))


def image_rng(seed: int, number: int, emotion: str, take: int) -> np.random.Generator:
    """Return the random generator of one image."""
    key = (seed, _IMAGE, number, EMOTIONS.index(emotion), take)
    return np.random.default_rng(np.random.SeedSequence(key))
