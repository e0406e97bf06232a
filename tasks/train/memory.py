"""What to do when a batch does not fit: cut it into twice as many pieces.

The gradients of the pieces are added up, so that a step is the one of the whole batch; batch
normalisation alone then goes by the pictures of a piece.
"""

import gc
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import torch

from tasks.core.errors import ModelError
from tasks.core.progress import say

Answer = TypeVar("Answer")
_TOO_SMALL = (
    "out of memory with one picture at a time; choose a smaller input_size_px or backbone, or a "
    "device with more memory"
)

_SIGNS = (
    "can't allocate memory",  # torch's CPU allocator
    "out of memory",  # CUDA and its libraries
    "_STATUS_ALLOC_FAILED",  # cuBLAS, cuDNN
    "could not create a primitive",  # oneDNN, whose code for a shape takes memory too
)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that the device's memory is too small."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


def clear_up(device: torch.device) -> None:
    """Give back what the failed attempt held; called when its error is gone."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def more_pieces(pieces: int, batch_size: int, n_processes: int) -> int:
    """Return twice as many pieces.

    Parameters
    ----------
    pieces
        Into how many each process's part of a batch was cut.
    batch_size, n_processes
        Pictures a batch, and among how many processes they are shared.

    Raises
    ------
    ModelError
        Where a piece was one picture already.
    """
    if batch_size // n_processes <= pieces:
        raise ModelError(_TOO_SMALL)
    return 2 * pieces


def said(pieces: int, batch_size: int, n_processes: int) -> str:
    """Say in one line what is done about it."""
    at_once = -(-batch_size // (pieces * n_processes))
    return (
        f"out of memory: a batch of {batch_size} now goes through in pieces of at most {at_once} "
        "pictures, whose gradients are added up"
    )


def in_parts_that_fit(
    ask: Callable[[np.ndarray], Answer], rows: np.ndarray, at_once: int, device: torch.device
) -> Iterator[tuple[np.ndarray, Answer]]:
    """Ask a network about pictures, fewer at once where memory does not suffice.

    Parameters
    ----------
    ask
        From `(B,)` rows to what the network makes of these pictures.
    rows
        `(N,)`: about which.
    at_once
        How many at first.
    device
        Where the network is.

    Yields
    ------
    tuple
        Rows, and the answer about them, in order.

    Raises
    ------
    ModelError
        Where memory does not hold one picture.
    """
    done = 0
    while done < len(rows):
        part = rows[done : done + at_once]
        try:
            answer = ask(part)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            yield part, answer
            done += len(part)
            continue
        if len(part) == 1:
            raise ModelError(_TOO_SMALL)
        at_once = len(part) // 2
        clear_up(device)
        say(f"out of memory: the network is now asked about {at_once} pictures at once")
