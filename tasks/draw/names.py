"""The file-name convention of drawn pictures.

`D0042_a05_f_happiness_1.jpg`: subject `D` + 4 digits, age in whole years with 2 digits, gender as
recorded (`f` or `m`), emotion, and the take, counted from 1.
"""

import re
from dataclasses import dataclass

from tasks.core.labels import EMOTIONS

SUFFIX = ".jpg"
GENDER_LETTERS = {"female": "f", "male": "m"}

_PATTERN = re.compile(
    r"(?P<subject>D\d{4})_a(?P<age>\d{2})_(?P<gender>[fm])_(?P<emotion>[a-z]+)_(?P<take>[1-9]\d*)"
    + re.escape(SUFFIX)
)


@dataclass(frozen=True)
class PictureName:
    """What a drawn picture's file name says.

    Attributes
    ----------
    subject
        `D` and four digits.
    age_years
        Age in whole years, 0 to 99.
    gender
        As recorded: female or male.
    emotion
        A word of `tasks.core.labels.EMOTIONS`.
    take
        Number of the picture among those of its subject and emotion, from 1.
    """

    subject: str
    age_years: int
    gender: str
    emotion: str
    take: int

    @property
    def stem(self) -> str:
        """Return the name without its suffix, the key of the picture's truth."""
        letter = GENDER_LETTERS[self.gender]
        return f"{self.subject}_a{self.age_years:02d}_{letter}_{self.emotion}_{self.take}"

    @property
    def file_name(self) -> str:
        """Return the name with its suffix."""
        return self.stem + SUFFIX


def parse_name(file_name: str) -> PictureName:
    """Read a file name back; raises ValueError for a name of another convention."""
    match = _PATTERN.fullmatch(file_name)
    if match is None or match["emotion"] not in EMOTIONS:
        raise ValueError(f"{file_name!r} is no name of a drawn picture")
    gender = next(name for name, letter in GENDER_LETTERS.items() if letter == match["gender"])
    return PictureName(
        match["subject"], int(match["age"]), gender, match["emotion"], int(match["take"])
    )
