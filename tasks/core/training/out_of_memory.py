"""Handling of out-of-memory errors: split a batch into twice as many accumulation steps.

Gradients are accumulated, so that a step is that of the whole batch. Only batch normalization then
uses the images of one part.
"""

import gc
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import torch

from tasks.core.errors import ModelError
from tasks.core.parallel.progress import say

Answer = TypeVar("Answer")
_TOO_SMALL_MESSAGE = (
    "out of memory with one picture at a time; choose a smaller input_size_px or backbone, or a "
    "device with more memory"
)

_OOM_PHRASES = (
    "can't allocate memory",  # torch's CPU allocator
    "out of memory",  # CUDA and its libraries
    "_STATUS_ALLOC_FAILED",  # cuBLAS, cuDNN
    "could not create a primitive",  # oneDNN: generated kernels need memory too
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory is too small."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in _OOM_PHRASES)


def free_memory(device: torch.device) -> None:
    """Free the memory of a failed attempt; call it after leaving the error's handler."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def double_accumulation_steps(pieces: int, batch_size: int, n_processes: int) -> int:
    """Return twice as many accumulation steps.

    `pieces` is the number of parts of each process's share of a batch. Raises ModelError if a part
    already is one image.
    """
    if batch_size // n_processes <= pieces:
        raise ModelError(_TOO_SMALL_MESSAGE)
    return 2 * pieces


def oom_message(pieces: int, batch_size: int, n_processes: int) -> str:
    """Return the message of the reduction."""
    at_once = -(-batch_size // (pieces * n_processes))
    return (
        f"out of memory: a batch of {batch_size} is now split into parts of at most {at_once} "
        "pictures, whose gradients are added up"
    )


def predict_with_oom_backoff(
    ask: Callable[[np.ndarray], Answer], rows: np.ndarray, at_once: int, device: torch.device
) -> Iterator[tuple[np.ndarray, Answer]]:
    """Predict in batches that are halved when memory is insufficient.

    `ask` maps `(B,)` rows to a result. Yields each batch's rows and its result, in order. Raises
    ModelError if memory does not hold one image.
    """
    n_done = 0
    while n_done < len(rows):
        part = rows[n_done : n_done + at_once]
        try:
            answer = ask(part)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            yield part, answer
            n_done += len(part)
            continue
        if len(part) == 1:
            raise ModelError(_TOO_SMALL_MESSAGE)
        at_once = len(part) // 2
        free_memory(device)
        say(f"out of memory: the batch size is now {at_once} pictures")
