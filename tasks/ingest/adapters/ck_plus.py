"""Adapter `ck-plus`: the Extended Cohn-Kanade Dataset, sequences of 123 adults of 18 to 50 years.

P. Lucey, J. F. Cohn, T. Kanade, J. Saragih, Z. Ambadar, I. Matthews (2010), CVPR Workshops
2010:94-101, https://doi.org/10.1109/CVPRW.2010.5543262. For non-commercial research, on request
from the Affect Analysis Group, University of Pittsburgh.

`…/S005/001/S005_001_00000011.png` is frame 11 of sequence 001 of subject S005. The last frame is
the peak, and `Emotion/S005/001/S005_001_00000011_emotion.txt` holds its label: 0 neutral, 1 anger,
2 contempt, 3 disgust, 4 fear, 5 happy, 6 sadness, 7 surprise. 327 of 593 sequences have one.

The labeled frame is used, and the first frame of a labeled sequence as neutral, because the set
states that every sequence begins with a neutral face. The frames between the two are left out, as
are sequences without a label. The set states the range of ages; gender is not in the names.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from tasks.core.errors import DataError
from tasks.ingest.label import AdapterResult, Fault, Label, age_range, base_name, unreadable

_NAME = re.compile(r"(?P<sequence>(?P<subject>S\d{3})_\d{3})_(?P<frame>\d{8})\.(?:png|jpe?g)")
_EMOTION_FILE = re.compile(r"(?P<sequence>S\d{3}_\d{3})_(?P<frame>\d{8})_emotion\.txt")
_EMOTIONS: Mapping[int, str] = dict(
    enumerate(
        ("neutral", "anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise")
    )
)
_FIRST = 1
_AGES = age_range(18, 50)


def read_ck_plus(folder: Path, files: Sequence[str]) -> AdapterResult:
    """Read labels from the files beside the sequences; DataError without any.

    Faults are `unreadable_name`, `no_label` (of the sequence), `unlabelled_frame` and
    `missing_file` (labeled).
    """
    side_files = frozenset(path for path in files if PurePosixPath(path).suffix == ".txt")
    codes = {
        (part["sequence"], int(part["frame"])): _read_code(folder / path)
        for path in sorted(side_files)
        if (part := _EMOTION_FILE.fullmatch(base_name(path)))
    }
    if not codes:
        raise DataError(f"{folder}: no Emotion/S005/001/*_emotion.txt; put the set's labels there")
    sequences = {sequence for sequence, _ in codes}
    labels: dict[str, Label | Fault] = {}
    existing = set()
    for path in (path for path in files if path not in side_files):
        part = _NAME.fullmatch(base_name(path))
        if part is None:
            labels[path] = unreadable("S005_001_00000011.png")
            continue
        existing.add((part["sequence"], int(part["frame"])))
        labels[path] = _label(part, codes, sequences)
    missing = {
        f"{sequence}_{frame:08}.png": Fault("missing_file", "has a label, but does not exist")
        for sequence, frame in codes
        if (sequence, frame) not in existing
    }
    return AdapterResult(labels, side_files, missing)


def _label(
    part: re.Match[str], codes: Mapping[tuple[str, int], int], sequences: set[str]
) -> Label | Fault:
    frame = int(part["frame"])
    if part["sequence"] not in sequences:
        return Fault("no_label", f"sequence {part['sequence']} has no label")
    code = codes.get((part["sequence"], frame), 0 if frame == _FIRST else None)
    if code is None:
        return Fault("unlabelled_frame", "is between the neutral first frame and the peak")
    if code not in _EMOTIONS:
        return Fault("unknown_label", f"code {code}; labels are 0 to 7")
    return Label(
        emotion=_EMOTIONS[code],
        emotion_raw=str(code),
        subject=part["subject"],
        age_range=_AGES,
        age_source="dataset",
    )


def _read_code(path: Path) -> int:
    text = path.read_text("utf-8", "replace").strip()
    try:
        code = float(text)
    except ValueError:
        code = -1.0
    if code != int(code) or code < 0:
        raise DataError(f"{path}: '{text[:40]}' is not an emotion's code such as 3.0000000e+00")
    return int(code)
