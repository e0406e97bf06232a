"""Adapter `utkface`: UTKFace, 23,708 pictures from the web with age, gender and race.

Z. Zhang, Y. Song, H. Qi (2017), CVPR 2017:4352-4360, https://doi.org/10.1109/CVPR.2017.463. For
non-commercial research: https://susanqq.github.io/UTKFace/.

`26_1_2_20170116174525125.jpg` (aligned copies end in `.jpg.chip.jpg`) is 26 years, gender 1 (0 is
male, 1 female), race 2 (0 White, 1 Black, 2 Asian, 3 Indian, 4 Others) and a time. Ages are
estimates, by a model and then by people. There is no emotion: the set can be counted, not ingested.
A few names lack a part; they are rejects.
"""

import re

from tasks.ingest.label import Fault, Label, unreadable

_NAME = re.compile(
    r"(?P<age>\d{1,3})_(?P<gender>[01])_(?P<race>[0-4])_\d{17}\.jpe?g(?:\.chip\.jpe?g)?",
    re.ASCII | re.IGNORECASE,
)
_GENDERS = ("male", "female")
_RACES = ("White", "Black", "Asian", "Indian", "Others")


def read_name(name: str) -> Label | Fault:
    """Read age, gender and race from a file's name; a fault is `unreadable_name`."""
    parts = _NAME.fullmatch(name)
    if parts is None:
        return unreadable("26_1_2_20170116174525125.jpg")
    return Label(
        emotion=None,
        emotion_raw="",
        age_years=float(parts["age"]),
        age_source="estimated",
        gender=_GENDERS[int(parts["gender"])],
        ethnicity=_RACES[int(parts["race"])],
    )
