"""Adapter `kdef`: the Karolinska Directed Emotional Faces, 70 adults of 20 to 30 years.

D. Lundqvist, A. Flykt, A. Öhman (1998), Karolinska Institutet, ISBN 91-630-7164-9. For
non-commercial research: https://kdef.se/.

`AF01ANFL.JPG` is session A, a woman, number 01, angry, full left profile. The same person sat for
the sessions A and B, so that a subject is sex and number. The set states the range of ages, 20 to
30, and no age of anyone. A few names of the set end without a view; they are rejects.
"""

import re
from collections.abc import Mapping

from tasks.core.labels import GENDER_WORDS
from tasks.ingest.label import Fault, Label, age_range, unreadable

_NAME = re.compile(
    r"[AB](?P<subject>(?P<sex>[MF])\d{2})(?P<emotion>AF|AN|DI|HA|NE|SA|SU)"
    r"(?P<view>S|HL|HR|FL|FR)\.jpe?g",
    re.ASCII | re.IGNORECASE,
)
_EMOTIONS: Mapping[str, str] = {
    "AF": "fear",
    "AN": "anger",
    "DI": "disgust",
    "HA": "happiness",
    "NE": "neutral",
    "SA": "sadness",
    "SU": "surprise",
}
_VIEWS: Mapping[str, str] = {
    "S": "straight",
    "HL": "half left",
    "HR": "half right",
    "FL": "full left",
    "FR": "full right",
}
_AGES = age_range(20, 30)


def read_name(name: str) -> Label | Fault:
    """Read labels from a file's name; a fault is `unreadable_name`."""
    parts = _NAME.fullmatch(name)
    if parts is None:
        return unreadable("AF01ANFL.JPG")
    return Label(
        emotion=_EMOTIONS[parts["emotion"].upper()],
        emotion_raw=parts["emotion"],
        subject=parts["subject"].upper(),
        age_range=_AGES,
        age_source="dataset",
        gender=GENDER_WORDS[parts["sex"].lower()],
        pose=_VIEWS[parts["view"].upper()],
    )
