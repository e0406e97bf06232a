"""Adapter `defss`: the Developmental Emotional Faces Stimulus Set, 116 people of 8 to 30 years.

A. S. Meuwissen, J. E. Anderson, P. D. Zelazo (2017), Behavior Research Methods 49:960-966,
https://doi.org/10.3758/s13428-016-0756-7. For research, on request; the paper says from where.

`1_F8_Sad.jpg` is subject 1, a girl of 8, sad; ages are recorded, one a person. Quirks: subject 6
has names with age and sex the other way round (`6_8M_Fear.jpg`); some names end in `_s`.
"""

import re

from tasks.core.labels import EMOTION_WORDS, GENDER_WORDS
from tasks.ingest.label import Fault, Label, unreadable

_NAME = re.compile(
    r"(?P<subject>\d{1,3})_(?:(?P<sex>[MF])(?P<age>\d{1,2})|(?P<age_first>\d{1,2})(?P<sex_last>[MF]))"
    r"_(?P<emotion>Angry|Fear|Happy|Neutral|Sad)(?:_s)?\.jpe?g",
    re.ASCII | re.IGNORECASE,
)


def read_name(name: str) -> Label | Fault:
    """Read labels from a file's name; a fault is `unreadable_name`."""
    parts = _NAME.fullmatch(name)
    if parts is None:
        return unreadable("1_F8_Sad.jpg")
    return Label(
        emotion=EMOTION_WORDS[parts["emotion"].lower()],
        emotion_raw=parts["emotion"],
        subject=parts["subject"],
        age_years=float(parts["age"] or parts["age_first"]),
        age_source="recorded",
        gender=GENDER_WORDS[(parts["sex"] or parts["sex_last"]).lower()],
    )
