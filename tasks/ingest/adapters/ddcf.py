"""Adapter `ddcf`: the Dartmouth Database of Children's Faces, 80 children of 6 to 16 years.

K. A. Dalrymple, J. Gomez, B. Duchaine (2013), PLoS ONE 8(11):e79131,
https://doi.org/10.1371/journal.pone.0079131. For research, from its authors on request.

`S04_13yoM_Afraid_far left 1.jpg` is subject 04, a boy of 13, afraid, seen from the far left; the
number tells takes apart. Ages are recorded, one a child.

Quirks: `Pleased` (for one child `HappyNoTeeth`), a smile with the mouth closed, is a class of its
own beside `Happy` or `HappyTeeth`; it is no emotion of the vocabulary and is left out with that
reason. `Digust` is a misspelling. Eleven names of subject 111 hold no emotion and two of subject 99
say `exp`: they are rejects. Endings vary (`front1`, `Front_01`, `leftg 2`, `_2066a`).
"""

import re
from collections.abc import Mapping

from tasks.core.labels import EMOTION_WORDS, GENDER_WORDS
from tasks.ingest.label import Fault, Label, unreadable

_NAME = re.compile(
    r"(?P<subject>S\d{1,3})_(?P<age_years>\d{1,2})yo(?P<sex>[MF])_(?P<emotion>[a-z]+)_"
    r"(?P<view>(?:far )?(?:left|right)|front)g?[ _]*\d*[ab]?\.jpe?g",
    re.ASCII | re.IGNORECASE,
)
_WORDS: Mapping[str, str] = {
    "digust": "disgust",
    "happyteeth": "happiness",
    **{word: EMOTION_WORDS[word] for word in ("afraid", "angry", "disgust", "happy", "neutral")},
    **{word: EMOTION_WORDS[word] for word in ("sad", "surprise")},
}
_PLEASED = frozenset(["pleased", "happynoteeth"])


def read_name(name: str) -> Label | Fault:
    """Read labels from a file's name; a fault is `unreadable_name` or `unknown_label` (pleased)."""
    parts = _NAME.fullmatch(name)
    if parts is None:
        return unreadable("S04_13yoM_Afraid_far left 1.jpg")
    word = parts["emotion"].lower()
    if word in _PLEASED:
        return Fault("unknown_label", f"'{parts['emotion']}' is no emotion of the vocabulary")
    if word not in _WORDS:
        return Fault("unreadable_name", f"'{parts['emotion']}' names no expression of the set")
    return Label(
        emotion=_WORDS[word],
        emotion_raw=parts["emotion"],
        subject=parts["subject"].upper(),
        age_years=float(parts["age_years"]),
        age_source="recorded",
        gender=GENDER_WORDS[parts["sex"].lower()],
        pose=parts["view"].lower(),
    )
