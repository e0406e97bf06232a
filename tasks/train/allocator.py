"""Freed memory stays in the process, so that the next step of a training takes it from there.

glibc gives large blocks back to the kernel when they are freed, and the kernel fills each page with
zeros when the next step asks for as much again: a fifth to a third of a step's processor time.
The price is memory: a process holds what it needed at most until it ends, and gaps between blocks
(a quarter more was measured). https://man7.org/linux/man-pages/man3/mallopt.3.html
"""

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # as malloc.h numbers them
_SETTINGS = ((_MMAP_THRESHOLD, 2**30), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**26))  # bytes


def keep_freed_memory() -> bool:
    """Ask this process's allocator to keep what is freed; say whether it does.

    Other allocators than glibc's are left as they are. It cannot be taken back: a process that
    trains is one that ends afterwards.
    """
    if sys.platform != "linux":
        return False
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is None:
        return False
    return all([set_option(option, value) for option, value in _SETTINGS])
