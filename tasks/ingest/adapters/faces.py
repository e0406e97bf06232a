"""Adapter `faces`: FACES of the Max Planck Institute, 171 adults of three age groups.

N. C. Ebner, M. Riediger, U. Lindenberger (2010), Behavior Research Methods 42:351-362,
https://doi.org/10.3758/BRM.42.1.351. For research, on request: https://faces.mpdl.mpg.de/.

`004_o_m_a_a.jpg` is person 004, older, male, anger, picture set a. The paper states the ages of
each group: young 19-31, middle-aged 39-55, older 69-80; no age of anyone is in the names.
"""

import re
from collections.abc import Mapping

from tasks.core.labels import GENDER_WORDS
from tasks.ingest.label import AgeRange, Fault, Label, age_range, unreadable

_NAME = re.compile(
    r"(?P<subject>\d{3})_(?P<group>[ymo])_(?P<sex>[mf])_(?P<emotion>[adfhns])_[ab]\.jpe?g",
    re.ASCII | re.IGNORECASE,
)
_EMOTIONS: Mapping[str, str] = {
    "a": "anger",
    "d": "disgust",
    "f": "fear",
    "h": "happiness",
    "n": "neutral",
    "s": "sadness",
}
_AGES: Mapping[str, AgeRange] = {
    "y": age_range(19, 31, "young"),
    "m": age_range(39, 55, "middle-aged"),
    "o": age_range(69, 80, "older"),
}


def read_name(name: str) -> Label | Fault:
    """Read labels from a file's name; a fault is `unreadable_name`."""
    parts = _NAME.fullmatch(name)
    if parts is None:
        return unreadable("004_o_m_a_a.jpg")
    return Label(
        emotion=_EMOTIONS[parts["emotion"].lower()],
        emotion_raw=parts["emotion"],
        subject=parts["subject"],
        age_range=_AGES[parts["group"].lower()],
        age_source="dataset",
        gender=GENDER_WORDS[parts["sex"].lower()],
    )
