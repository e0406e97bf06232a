"""Weights files in the safetensors format, whose header is checked before any weight is read.

The format cannot run code, but a header may declare unsupported types, duplicate names, or
terabytes. Names, types and shapes are read first, so that a caller can reject a file before its
content is in memory.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load

from tasks.core.errors import ModelError
from tasks.core.text import one_line

State = dict[str, torch.Tensor]
_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 16 << 20
_MAX_TENSORS = 50_000
# Bytes per number of the types that are read, and whether they are floating point.
_TYPES: Mapping[str, tuple[int, bool]] = {
    "F64": (8, True),
    "F32": (4, True),
    "F16": (2, True),
    "BF16": (2, True),
    "I64": (8, False),
    "I32": (4, False),
    "I16": (2, False),
    "I8": (1, False),
    "U8": (1, False),
    "BOOL": (1, False),
}


@dataclass(frozen=True)
class Declared:
    """Shape of a tensor and whether it is floating point, as the header declares."""

    shape: tuple[int, ...]
    floating: bool


def read_header(path: Path) -> dict[str, Declared]:
    """Read the declared tensors of a safetensors file.

    Raises ModelError if the file is missing or damaged, or has tensors of an unsupported type.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such weights file; train the model again")
    try:
        header, n_data_bytes = _header(path)
        declared = {}
        end = 0
        entries = [(name, entry) for name, entry in header if name != "__metadata__"]
        if len(entries) > _MAX_TENSORS:
            raise ValueError(f"it has more than {_MAX_TENSORS:,} tensors")
        for name, entry in sorted(entries, key=lambda pair: pair[1]["data_offsets"]):
            declared[name], end = _declared(name, entry, end)
        if end != n_data_bytes:
            raise ValueError(f"its header declares {end:,} bytes of weights, it has {n_data_bytes}")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, error) from None
    return declared


def read_tensors(path: Path) -> State:
    """Read a safetensors file's tensors, floating-point ones as float32; see `read_header`."""
    read_header(path)
    try:
        state: State = load(path.read_bytes())
    except Exception as error:  # noqa: BLE001 - SafetensorError, or any error of torch
        raise _damaged(path, error) from None
    return {name: _as_float32(tensor) for name, tensor in state.items()}


def assert_finite(state: Mapping[str, torch.Tensor], origin: Path | str) -> None:
    """Raise ModelError if a weight is NaN or infinite, and name the first."""
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ModelError(
                f"{origin}: holds weights that are NaN or infinite (first in {one_line(name)}); "
                "take an undamaged copy, or train the model again"
            )


def _header(path: Path) -> tuple[list[tuple[str, Any]], int]:
    size = path.stat().st_size
    with path.open("rb") as file:
        n_bytes = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if n_bytes > min(size - _LENGTH_BYTES, _MAX_HEADER_BYTES):
            raise ValueError(f"its header would have {n_bytes:,} bytes")
        pairs = json.loads(file.read(n_bytes).decode(), object_pairs_hook=_without_duplicates)
    return list(pairs.items()), size - _LENGTH_BYTES - n_bytes


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError("its header has a name twice")
    return result


def _declared(name: str, entry: dict[str, Any], start: int) -> tuple[Declared, int]:
    """Check one entry, whose data must begin at `start`; return it and its end."""
    kind, shape, (begin, end) = str(entry["dtype"]), entry["shape"], entry["data_offsets"]
    if kind not in _TYPES:
        raise ValueError(
            f"tensor '{one_line(name)}' is of type {one_line(kind, 20)}; convert it to F32"
        )
    if not all(isinstance(side, int) and side >= 0 for side in (*shape, begin, end)):
        raise ValueError(f"tensor '{one_line(name)}' has no sizes that are counts")
    n_bytes, floating = _TYPES[kind]
    if begin != start or end - begin != math.prod(shape) * n_bytes:
        raise ValueError(f"tensor '{one_line(name)}' does not lie where its shape and type put it")
    return Declared(tuple(shape), floating), end


def _as_float32(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _damaged(path: Path, error: Exception) -> ModelError:
    reason = one_line(error) or type(error).__name__
    return ModelError(f"{path}: the weights file is damaged, or no safetensors file ({reason})")
