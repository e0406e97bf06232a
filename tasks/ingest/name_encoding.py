"""Names of files whose encoding nobody recorded: Korean Windows writes cp949 into its zips."""

import unicodedata
from collections.abc import Sequence

_UTF8, _KOREAN, _DOS = "utf-8", "cp949", "cp437"
_MIN_COMMON_SHARE = 0.9  # of Korean syllables that are among the 2,350 common ones of KS X 1001


def encoding_of_names(names: Sequence[bytes]) -> str | None:
    """Return the one encoding that undeclared names of an archive can be in.

    Parameters
    ----------
    names
        The names that have bytes beyond ASCII; those of one archive, all together.

    Returns
    -------
    str or None
        `utf-8` (macOS); `cp949` (Korean Windows) where every name reads as Korean; `cp437` (zip's
        own, which Western versions of Windows write too) where every name then has Latin letters
        alone; None where it is neither.
    """
    if _decoded(names, _UTF8) is not None:
        return _UTF8
    korean = _decoded(names, _KOREAN)
    if korean is not None and all(map(_is_korean, korean)) and _is_common(korean):
        return _KOREAN
    western = _decoded(names, _DOS)
    return _DOS if western is not None and all(map(_is_latin, western)) else None


def _decoded(names: Sequence[bytes], encoding: str) -> list[str] | None:
    try:
        return [name.decode(encoding) for name in names]
    except UnicodeDecodeError:
        return None


def _is_korean(name: str) -> bool:
    """Whether all that is not ASCII is Hangul, or punctuation between it."""
    other = [letter for letter in name if not letter.isascii()]
    hangul = [letter for letter in other if _is_hangul(letter)]
    return bool(hangul) and all(
        _is_hangul(letter) or unicodedata.category(letter)[0] in "PSZ" for letter in other
    )


def _is_hangul(letter: str) -> bool:
    return "\uac00" <= letter <= "\ud7a3" or "\u3131" <= letter <= "\u318e"


def _is_common(names: Sequence[str]) -> bool:
    """Whether nearly all syllables are common: bytes of another encoding give rare ones."""
    syllables = [letter for name in names for letter in name if _is_hangul(letter)]
    common = sum(len(letter.encode("euc_kr", "ignore")) == 2 for letter in syllables)
    return common >= _MIN_COMMON_SHARE * len(syllables)


def _is_latin(name: str) -> bool:
    return all(
        letter.isascii() or unicodedata.name(letter, "").startswith("LATIN ") for letter in name
    )
