"""Adapter `rafd`: the Radboud Faces Database, 57 adults and 10 children.

O. Langner, R. Dotsch, G. Bijlstra, D. H. J. Wigboldus, S. T. Hawk, A. van Knippenberg (2010),
Cognition & Emotion 24(8):1377-1388, https://doi.org/10.1080/02699930903485076. For non-commercial
research, on request: https://rafd.socsci.ru.nl/.

`Rafd090_01_Caucasian_female_angry_frontal.jpg` is the camera at 90 degrees (the front), subject 01,
race, gender, emotion and gaze. The camera's angle is kept as the set writes it.

Quirks: `Kid` stands where the race stands and marks the ten children, who are Caucasian by the
set's description. The set gives no ages: a kid is under 18, which spans the bands child and
adolescent of the default params, so that the band of the children is unknown there; everyone else
is 18 or older. With `age_bands: {minor: [0, 18], adult: [18, 130]}` both are known.
"""

import re
from collections.abc import Mapping

from tasks.core.labels import EMOTION_WORDS
from tasks.ingest.label import Fault, Label, age_range, unreadable

_NAME = re.compile(
    r"Rafd(?P<angle>000|045|090|135|180)_(?P<subject>\d{2})_(?P<race>Caucasian|Moroccan|Kid)_"
    r"(?P<gender>female|male)_(?P<emotion>angry|contemptuous|disgusted|fearful|happy|neutral|sad|"
    r"surprised)_(?P<gaze>frontal|left|right)\.jpe?g",
    re.ASCII | re.IGNORECASE,
)
_WORDS: Mapping[str, str] = {**EMOTION_WORDS, "contemptuous": "contempt"}
_KID = age_range(0, 17, "Kid")
_ADULT = age_range(18, None, "adult")


def read_name(name: str) -> Label | Fault:
    """Read labels from a file's name; a fault is `unreadable_name`."""
    parts = _NAME.fullmatch(name)
    if parts is None:
        return unreadable("Rafd090_01_Caucasian_female_angry_frontal.jpg")
    kid = parts["race"].lower() == "kid"
    return Label(
        emotion=_WORDS[parts["emotion"].lower()],
        emotion_raw=parts["emotion"],
        subject=parts["subject"],
        age_range=_KID if kid else _ADULT,
        age_source="dataset",
        gender=parts["gender"].lower(),
        ethnicity="Caucasian" if kid else parts["race"].capitalize(),
        gaze=parts["gaze"].lower(),
        pose=parts["angle"],
    )
