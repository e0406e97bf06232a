"""Adapter `jaffe`: Japanese Female Facial Expression, 10 Japanese women.

M. Lyons, S. Akamatsu, M. Kamachi, J. Gyoba (1998), FG 1998:200-205,
https://doi.org/10.1109/AFGR.1998.670949. For non-commercial research, on request:
https://doi.org/10.5281/zenodo.3451524.

`KA.AN1.39.tiff` (in copies `KA_AN1_39.png`) is the woman KA, anger, take 1, picture 39. Gender and
ethnicity are those of the set's title; it gives no ages, so that there are none.
"""

import re
from collections.abc import Mapping

from tasks.ingest.label import Fault, Label, unreadable

_NAME = re.compile(
    r"(?P<subject>[A-Z]{2})[._](?P<emotion>AN|DI|FE|HA|NE|SA|SU)\d[._]\d{1,3}"
    r"\.(?:tiff?|png|jpe?g|bmp)",
    re.ASCII | re.IGNORECASE,
)
_EMOTIONS: Mapping[str, str] = {
    "AN": "anger",
    "DI": "disgust",
    "FE": "fear",
    "HA": "happiness",
    "NE": "neutral",
    "SA": "sadness",
    "SU": "surprise",
}


def read_name(name: str) -> Label | Fault:
    """Read labels from a file's name; a fault is `unreadable_name`."""
    parts = _NAME.fullmatch(name)
    if parts is None:
        return unreadable("KA.AN1.39.tiff")
    return Label(
        emotion=_EMOTIONS[parts["emotion"].upper()],
        emotion_raw=parts["emotion"],
        subject=parts["subject"].upper(),
        gender="female",
        ethnicity="Japanese",
    )
