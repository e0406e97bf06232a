"""What to do when a batch does not fit: cut it into twice as many pieces.

The gradients of the pieces are added up, so that a step is the one of the whole batch; batch
normalisation alone then goes by the pictures of a piece.
"""

import gc

import torch

from tasks.core.errors import ModelError

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
        raise ModelError(
            "out of memory with one picture at a time; choose a smaller input_size_px or backbone, "
            "or a device with more memory"
        )
    return 2 * pieces


def said(pieces: int, batch_size: int, n_processes: int) -> str:
    """Say in one line what is done about it."""
    at_once = -(-batch_size // (pieces * n_processes))
    return (
        f"out of memory: a batch of {batch_size} now goes through in pieces of at most {at_once} "
        "pictures, whose gradients are added up"
    )
