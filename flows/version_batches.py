"""Which data batches a version of the model was trained with, in words that stay short.

Their names are kept as the version's tag `batches`, by a pass in the order of their arrival.
"""

from collections.abc import Mapping, Sequence

_NONE = "none"
_FEW = 6  # batches of a version that are all named
_SHOWN = 4  # of more than these, that came or went since the version before


def batches_of(tags: Mapping[str, str]) -> list[str] | None:
    """Return the batches that a version was trained with; None where nobody kept them."""
    text = tags.get("batches")
    if not text:
        return None
    return [] if text == _NONE else text.split(", ")


def batches_words(own: Sequence[str] | None, before: Sequence[str] | None) -> str:
    """Say which batches a version was trained with.

    Parameters
    ----------
    own
        Its batches; None where nobody kept them.
    before
        Those of the version before it; None where there is none.

    Returns
    -------
    str
        A few by name, as "spring, summer"; of many how many they are and what is another than
        before, as "12 batches, +autumn −spring".
    """
    if own is None:
        return "–"
    if len(own) <= _FEW:
        return ", ".join(own) or _NONE
    told = f"{len(own)} batches"
    if before is None:
        return told
    return f"{told}, {changes_words(own, before, _SHOWN) or 'as before'}"


def is_cut(own: Sequence[str] | None) -> bool:
    """Tell whether `batches_words` leaves out names."""
    return own is not None and len(own) > _FEW


def changes_words(own: Sequence[str], before: Sequence[str], most: int | None = None) -> str:
    """Say which batches came and went, at most so many of each by name; "" where none did."""
    now, then = set(own), set(before)
    came = [name for name in own if name not in then]
    went = [name for name in before if name not in now]
    return " ".join([*_signed("+", came, most), *_signed("−", went, most)])


def _signed(sign: str, names: Sequence[str], most: int | None) -> list[str]:
    some = [f"{sign}{name}" for name in names[:most]]
    left = len(names) - len(some)
    return [*some, f"({sign}{left} more)"] if left else some
