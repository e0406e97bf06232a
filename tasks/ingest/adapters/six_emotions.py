"""Adapter `six-emotions`: "6 Emotions for image classification", 1,200 pictures, a folder a class.

From Kaggle, under its title; its page states the terms, and the sources of the pictures are not
documented. Anger 214, disgust 201, fear 163, happy 230, pain 168, sad 224.

Quirks: no age, no gender and no person is known, so that every picture stands for a subject of its
own, and pictures of one person may lie on both sides of a split. The class is the folder that a
picture lies in, however deep; names say nothing.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from tasks.core.labels import EMOTION_WORDS
from tasks.ingest.label import Fault, Label, Reading

_CLASSES: Mapping[str, str] = {
    word: EMOTION_WORDS[word] for word in ("anger", "disgust", "fear", "happy", "pain", "sad")
}


def read_six_emotions(folder: Path, files: Sequence[str]) -> Reading:
    """Read labels from folders.

    Parameters
    ----------
    folder
        The data set's folder (not looked at: paths say all).
    files
        Paths below the folder.

    Returns
    -------
    Reading
        Labels, or faults with reason `no_label` (in no folder) or `unknown_label`.
    """
    return Reading({path: _read_path(PurePosixPath(path)) for path in files})


def _read_path(path: PurePosixPath) -> Label | Fault:
    given = path.parent.name
    if not given:
        return Fault("no_label", f"lies in no folder; there are {', '.join(_CLASSES)}")
    emotion = _CLASSES.get(given.strip().casefold())
    if emotion is None:
        return Fault("unknown_label", f"folder '{given}' is none of {', '.join(_CLASSES)}")
    return Label(emotion, given)
