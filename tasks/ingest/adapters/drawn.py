"""Adapter `drawn`: the cohort of the stage `draw`, with all labels in the file names.

`D0042_a05_f_happiness_1.jpg` is subject D0042, 5 years, recorded female, happiness, take 1. The
cohort has the project's license. It is a demonstration, not evidence about children.
"""

import re

from tasks.core.labels import EMOTIONS, GENDER_WORDS
from tasks.ingest.label import Fault, Label, unreadable

_NAME = re.compile(
    r"(?P<subject>D\d{4})_a(?P<age_years>\d{2})_(?P<gender>[fm])_(?P<emotion>[a-z]+)_[1-9]\d*\.jpg",
    re.ASCII,
)


def read_name(name: str) -> Label | Fault:
    """Read labels from a name; faults are `unreadable_name` and `unknown_label`."""
    parts = _NAME.fullmatch(name)
    if parts is None:
        return unreadable("D0042_a05_f_happiness_1.jpg")
    if parts["emotion"] not in EMOTIONS:
        return Fault("unknown_label", f"emotion '{parts['emotion']}'")
    return Label(
        emotion=parts["emotion"],
        emotion_raw=parts["emotion"],
        subject=parts["subject"],
        age_years=float(parts["age_years"]),
        age_source="recorded",
        gender=GENDER_WORDS[parts["gender"]],
    )
