"""Adapter `nimh-chefs`: the NIMH Child Emotional Faces Image Set, 10 to 17 years.

H. L. Egger, D. S. Pine, E. Nelson, E. Leibenluft, M. Ernst, K. E. Towbin, A. Angold (2011), Int. J.
Methods Psychiatr. Res. 20(3):145-156, https://doi.org/10.1002/mpr.343. For research, from its
authors on request.

`F10FA_4434.jpg` is girl 10, fear, averted gaze; the letters are F A H N S for fear, anger, happy,
neutral, sad, then S for direct and A for averted gaze. The set only states the range of ages, 10 to
17. Images may be in one folder or in folders such as `Afraid_direct`; an image whose folder and
name disagree about emotion or gaze is a reject.

Quirks: names with an additional digit or sign (`F38HA_1_9330`, `F6_1_AS_3929`, `M10_4FS_6817`,
`M3-2SA_4764`, `F1H1A_3424`) are read. `F6_2FA_5449` shows boy M6 (`_ALIASES`). `DSC_4644` is the
camera's name of `M2FA_4644`: a reject if both exist, otherwise read as that.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from tasks.core.labels import EMOTION_WORDS, GENDER_WORDS
from tasks.ingest.label import AdapterResult, Fault, Label, age_range, unreadable

_NAME = re.compile(
    r"(?P<subject>(?P<sex>[MF])\d{1,2})(?:[_-]\d?_?)?(?P<emotion>[FAHNS])\d?(?P<gaze>[SA])"
    r"(?:_\d)?_\d{4}",
    re.ASCII,
)
_FOLDER = re.compile(
    r"(?P<emotion>afraid|angry|happy|neutral|sad)[_ -](?P<gaze>direct|averted)", re.IGNORECASE
)
_SUFFIXES = frozenset([".jpg", ".jpeg"])
_EMOTIONS: Mapping[str, str] = {
    "F": "fear",
    "A": "anger",
    "H": "happiness",
    "N": "neutral",
    "S": "sadness",
}
_GAZES: Mapping[str, str] = {"S": "direct", "A": "averted"}
_ALIASES: Mapping[str, str] = {"F6_2FA_5449": "M6_2FA_5449", "DSC_4644": "M2FA_4644"}
_AGES = age_range(10, 17)


def read_nimh_chefs(folder: Path, files: Sequence[str]) -> AdapterResult:
    """Read labels from names, and compare them with the names of folders.

    Faults are `unreadable_name`, `duplicate` (of an image under two names) and `conflicting_labels`
    (of folder and name).
    """
    stems = frozenset(PurePosixPath(path).stem for path in files)
    return AdapterResult({path: _read_path(PurePosixPath(path), stems) for path in files})


def _read_path(path: PurePosixPath, stems: frozenset[str]) -> Label | Fault:
    alias = _ALIASES.get(path.stem)
    if alias in stems:
        return Fault("duplicate", f"{path.stem} is another name of {alias}, which exists, too")
    parts = _NAME.fullmatch(alias or path.stem)
    if parts is None or path.suffix.lower() not in _SUFFIXES:
        return unreadable("F10FA_4434.jpg")
    emotion, gaze = _EMOTIONS[parts["emotion"]], _GAZES[parts["gaze"]]
    folder = _FOLDER.fullmatch(path.parent.name)
    if folder:
        of_folder = (EMOTION_WORDS[folder["emotion"].lower()], folder["gaze"].lower())
        if of_folder != (emotion, gaze):
            return Fault(
                "conflicting_labels", f"the name says {emotion}, {gaze}; folder {path.parent.name}"
            )
    return Label(
        emotion=emotion,
        emotion_raw=parts["emotion"],
        subject=parts["subject"],
        age_range=_AGES,
        age_source="dataset",
        gender=GENDER_WORDS[parts["sex"].lower()],
        gaze=gaze,
    )
