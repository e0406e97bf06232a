"""Adapters of posed portraits whose file names say all: DDCF, DEFSS, FACES, JAFFE, KDEF, RaFD.

Adapter `ddcf`: the Dartmouth Database of Children's Faces, 80 children of 6 to 16 years.

K. A. Dalrymple, J. Gomez, B. Duchaine (2013), PLoS ONE 8(11):e79131,
https://doi.org/10.1371/journal.pone.0079131. For research, from its authors on request.

`S04_13yoM_Afraid_far left 1.jpg` is subject 04, a boy of 13, afraid, seen from the far left; the
number distinguishes takes. One age is recorded per child.

Quirks: `Pleased` (for one child `HappyNoTeeth`), a smile with the mouth closed, is a separate class
beside `Happy` or `HappyTeeth`. It is not in the vocabulary and is left out with that reason.
`Digust` is a misspelling. Eleven names of subject 111 contain no emotion and two of subject 99
contain `exp`: they are rejects. Endings vary (`front1`, `Front_01`, `leftg 2`, `_2066a`).

Adapter `defss`: the Developmental Emotional Faces Stimulus Set, 116 people of 8 to 30 years.

A. S. Meuwissen, J. E. Anderson, P. D. Zelazo (2017), Behavior Research Methods 49:960-966,
https://doi.org/10.3758/s13428-016-0756-7. For research, on request as described in the paper.

`1_F8_Sad.jpg` is subject 1, a girl of 8, sad; one age is recorded per subject. Quirks: names of
subject 6 have age and sex in reverse order (`6_8M_Fear.jpg`); some names end in `_s`.

Adapter `faces`: FACES of the Max Planck Institute, 171 adults of three age groups.

N. C. Ebner, M. Riediger, U. Lindenberger (2010), Behavior Research Methods 42:351-362,
https://doi.org/10.3758/BRM.42.1.351. For research, on request: https://faces.mpdl.mpg.de/.

`004_o_m_a_a.jpg` is subject 004, older, male, anger, image set a. The paper states the ages of each
group: young 19-31, middle-aged 39-55, older 69-80; the names contain no ages.

Adapter `jaffe`: Japanese Female Facial Expression, 10 Japanese women.

M. Lyons, S. Akamatsu, M. Kamachi, J. Gyoba (1998), FG 1998:200-205,
https://doi.org/10.1109/AFGR.1998.670949. For non-commercial research, on request:
https://doi.org/10.5281/zenodo.3451524.

`KA.AN1.39.tiff` (in copies `KA_AN1_39.png`) is the woman KA, anger, take 1, image 39. Gender and
ethnicity come from the set's title. Ages are unknown.

Adapter `kdef`: the Karolinska Directed Emotional Faces, 70 adults of 20 to 30 years.

D. Lundqvist, A. Flykt, A. Öhman (1998), Karolinska Institutet, ISBN 91-630-7164-9. For
non-commercial research: https://kdef.se/.

`AF01ANFL.JPG` is session A, a woman, number 01, angry, full left profile. The sessions A and B show
the same persons, so that a subject is sex and number. The set only states the range of ages, 20 to
30. A few names of the set end without a view; they are rejects.

Adapter `rafd`: the Radboud Faces Database, 57 adults and 10 children.

O. Langner, R. Dotsch, G. Bijlstra, D. H. J. Wigboldus, S. T. Hawk, A. van Knippenberg (2010),
Cognition & Emotion 24(8):1377-1388, https://doi.org/10.1080/02699930903485076. For non-commercial
research, on request: https://rafd.socsci.ru.nl/.

`Rafd090_01_Caucasian_female_angry_frontal.jpg` is the camera at 90 degrees (the front), subject 01,
race, gender, emotion and gaze. The camera's angle becomes `pose`.

Quirks: `Kid` in place of the race marks the ten children, who are Caucasian by the set's
description. The set has no ages: a kid is under 18, everyone else is 18 or older. Kids span the
bands child and adolescent of the default params, so that their band is unknown there. With
`age_bands: {minor: [0, 18], adult: [18, 130]}` both are known.
"""

import re
from collections.abc import Mapping

from tasks.core.labels import EMOTION_WORDS, GENDER_WORDS
from tasks.ingest.label import AgeRange, Fault, Label, age_range, unreadable

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
_DEFSS_NAME = re.compile(
    r"(?P<subject>\d{1,3})_(?:(?P<sex>[MF])(?P<age>\d{1,2})|(?P<age_first>\d{1,2})(?P<sex_last>[MF]))"
    r"_(?P<emotion>Angry|Fear|Happy|Neutral|Sad)(?:_s)?\.jpe?g",
    re.ASCII | re.IGNORECASE,
)
_FACES_NAME = re.compile(
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
_JAFFE_NAME = re.compile(
    r"(?P<subject>[A-Z]{2})[._](?P<emotion>AN|DI|FE|HA|NE|SA|SU)\d[._]\d{1,3}"
    r"\.(?:tiff?|png|jpe?g|bmp)",
    re.ASCII | re.IGNORECASE,
)
_JAFFE_EMOTIONS: Mapping[str, str] = {
    "AN": "anger",
    "DI": "disgust",
    "FE": "fear",
    "HA": "happiness",
    "NE": "neutral",
    "SA": "sadness",
    "SU": "surprise",
}
_KDEF_NAME = re.compile(
    r"[AB](?P<subject>(?P<sex>[MF])\d{2})(?P<emotion>AF|AN|DI|HA|NE|SA|SU)"
    r"(?P<view>S|HL|HR|FL|FR)\.jpe?g",
    re.ASCII | re.IGNORECASE,
)
_KDEF_EMOTIONS: Mapping[str, str] = {
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
_KDEF_AGES = age_range(20, 30)
_RAFD_NAME = re.compile(
    r"Rafd(?P<angle>000|045|090|135|180)_(?P<subject>\d{2})_(?P<race>Caucasian|Moroccan|Kid)_"
    r"(?P<gender>female|male)_(?P<emotion>angry|contemptuous|disgusted|fearful|happy|neutral|sad|"
    r"surprised)_(?P<gaze>frontal|left|right)\.jpe?g",
    re.ASCII | re.IGNORECASE,
)
_RAFD_WORDS: Mapping[str, str] = {**EMOTION_WORDS, "contemptuous": "contempt"}
_KID = age_range(0, 17, "Kid")
_ADULT = age_range(18, None, "adult")


def read_ddcf_name(name: str) -> Label | Fault:
    """Read labels from a name; faults are `unreadable_name` and `unknown_label` (pleased)."""
    parts = _NAME.fullmatch(name)
    if parts is None:
        return unreadable("S04_13yoM_Afraid_far left 1.jpg")
    word = parts["emotion"].lower()
    if word in _PLEASED:
        return Fault("unknown_label", f"'{parts['emotion']}' is not in the vocabulary of emotions")
    if word not in _WORDS:
        return Fault("unreadable_name", f"'{parts['emotion']}' is not an expression of the set")
    return Label(
        emotion=_WORDS[word],
        emotion_raw=parts["emotion"],
        subject=parts["subject"].upper(),
        age_years=float(parts["age_years"]),
        age_source="recorded",
        gender=GENDER_WORDS[parts["sex"].lower()],
        pose=parts["view"].lower(),
    )


def read_defss_name(name: str) -> Label | Fault:
    """Read labels from a name; the only fault is `unreadable_name`."""
    parts = _DEFSS_NAME.fullmatch(name)
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


def read_faces_name(name: str) -> Label | Fault:
    """Read labels from a name; the only fault is `unreadable_name`."""
    parts = _FACES_NAME.fullmatch(name)
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


def read_jaffe_name(name: str) -> Label | Fault:
    """Read labels from a name; the only fault is `unreadable_name`."""
    parts = _JAFFE_NAME.fullmatch(name)
    if parts is None:
        return unreadable("KA.AN1.39.tiff")
    return Label(
        emotion=_JAFFE_EMOTIONS[parts["emotion"].upper()],
        emotion_raw=parts["emotion"],
        subject=parts["subject"].upper(),
        gender="female",
        ethnicity="Japanese",
    )


def read_kdef_name(name: str) -> Label | Fault:
    """Read labels from a name; the only fault is `unreadable_name`."""
    parts = _KDEF_NAME.fullmatch(name)
    if parts is None:
        return unreadable("AF01ANFL.JPG")
    return Label(
        emotion=_KDEF_EMOTIONS[parts["emotion"].upper()],
        emotion_raw=parts["emotion"],
        subject=parts["subject"].upper(),
        age_range=_KDEF_AGES,
        age_source="dataset",
        gender=GENDER_WORDS[parts["sex"].lower()],
        pose=_VIEWS[parts["view"].upper()],
    )


def read_rafd_name(name: str) -> Label | Fault:
    """Read labels from a name; the only fault is `unreadable_name`."""
    parts = _RAFD_NAME.fullmatch(name)
    if parts is None:
        return unreadable("Rafd090_01_Caucasian_female_angry_frontal.jpg")
    kid = parts["race"].lower() == "kid"
    return Label(
        emotion=_RAFD_WORDS[parts["emotion"].lower()],
        emotion_raw=parts["emotion"],
        subject=parts["subject"],
        age_range=_KID if kid else _ADULT,
        age_source="dataset",
        gender=parts["gender"].lower(),
        ethnicity="Caucasian" if kid else parts["race"].capitalize(),
        gaze=parts["gaze"].lower(),
        pose=parts["angle"],
    )
