"""A full disk, in one line: told by whatever meets it first, in words of its own."""

import errno

FULL = "the disk is full; make room, then run the same command again"
_ERRNOS = (errno.ENOSPC, errno.EDQUOT)
_WORDS = ("No space left on device", "database or disk is full", "Disk quota exceeded")


def is_full(error: BaseException) -> bool:
    """Tell whether an error, or one behind it, came of a full disk."""
    seen: set[int] = set()
    behind: BaseException | None = error
    while behind is not None and id(behind) not in seen:
        if isinstance(behind, OSError) and behind.errno in _ERRNOS:
            return True
        if says_full(str(behind)):
            return True
        seen.add(id(behind))
        behind = behind.__cause__ or behind.__context__
    return False


def says_full(text: str) -> bool:
    """Tell whether another program's message is of a full disk."""
    return any(words in text for words in _WORDS)
