"""Random ids, and the spellings in which tables, archives and keyboards give one and the same."""

import random
import unicodedata

from tasks.core.text import clean, is_missing

_LETTERS = "아이들가나다라마각닭김é ñöÅşệがプ-_.AbcS0127 "
_INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad"


def random_id(rng: random.Random) -> str:
    """An id as it is stored: clean, and no word for missing."""
    while True:
        name = clean("".join(rng.choices(_LETTERS, k=rng.randint(1, 8))))
        if not is_missing(name):
            return name


def respelled(rng: random.Random, text: str) -> str:
    """The text in another spelling that looks the same."""
    form = rng.choice(["NFC", "NFD"])
    letters = list(unicodedata.normalize(form, text))
    for _ in range(rng.randint(0, 2)):
        letters.insert(rng.randint(0, len(letters)), rng.choice(_INVISIBLE))
    spaced = "".join(letters).replace(" ", rng.choice([" ", "\u00a0", "\u3000"]))
    return rng.choice(["", " ", "\u00a0"]) + spaced + rng.choice(["", " ", "\t", "\u00a0"])


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)
