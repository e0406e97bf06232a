"""Reader of Keras model files (`.h5`, `.hdf5`): h5py runs in a child process.

HDF5 is a file system in a file: links and storage may point to other files, groups may contain
themselves, and the library crashes on some damaged files. Only plain arrays stored in the file
itself are accepted. They are passed back as safetensors, so this process never opens the file with
h5py. This module does not import torch, since the child imports it.
"""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from tasks.core.errors import ModelError
from tasks.core.parallel.limited_process import LimitError, call_limited
from tasks.core.text import one_line

_CONFIG, _WEIGHTS = "model_config", "model_weights"
_SECONDS, _MEMORY_MB = 60.0, 1536
_MAX_CONFIG_BYTES = 4 << 20
_MAX_OBJECTS, _MAX_DEPTH = 5000, 16
_MAX_BYTES = 256 << 20  # of all arrays as float32; MobileNet v1 has 17 MB
_FILTERS = (1, 2, 3)  # deflate, shuffle, fletcher32: those that HDF5 itself brings and Keras uses


def read_hdf5(path: Path) -> tuple[str, dict[str, np.ndarray]]:
    """Read `model_config` (JSON) and the arrays below `model_weights` by path, as float32.

    Raises ModelError for a file that is missing, damaged, too large or refers to other files.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such weights file")
    with TemporaryDirectory(prefix="affectgap-") as folder:
        target = Path(folder) / "arrays.safetensors"
        try:
            config, names = call_limited(
                "tasks.train.pretrained.hdf5_arrays:extract",
                *(str(path.resolve()), str(path), str(target)),
                seconds=_SECONDS,
                memory_mb=_MEMORY_MB,
            )
            arrays = load_file(target)
        except (LimitError, SafetensorError, OSError) as error:
            raise ModelError(f"{_rejection(path)} (reading it {one_line(error)})") from None
    return config, {name: arrays[str(number)] for number, name in enumerate(names)}


def extract(path: str, name: str, target: str) -> list[Any]:
    """Copy a file's arrays into a safetensors file; `call_limited` runs this in a child process.

    `name` is the file as the user named it, for messages. Tensor `i` of `target` belongs to the
    `i`-th name. Returns `model_config` and the names. Raises ModelError; see `read_hdf5`.
    """
    try:
        with h5py.File(path, "r") as file:
            config = _config(file)
            arrays = dict(_arrays(_member(file, _WEIGHTS)))
    except Exception as error:  # noqa: BLE001 - h5py raises many types for damaged files
        reason = one_line(error) or type(error).__name__
        raise ModelError(f"{_rejection(name)} ({reason})") from None
    save_file({str(number): array for number, array in enumerate(arrays.values())}, target)
    return [config, list(arrays)]


def _rejection(name: Path | str) -> str:
    return f"{name}: is not a complete Keras model file"


def _config(file: h5py.File) -> str:
    if _CONFIG not in file.attrs:
        raise ValueError(f"it has no {_CONFIG}: save the model with model.save, not its weights")
    entry = file.attrs.get_id(_CONFIG)
    if entry.shape != () or h5py.check_string_dtype(entry.dtype) is None:
        raise ValueError(f"its {_CONFIG} is not text")
    content = file.attrs[_CONFIG]
    text = content.decode() if isinstance(content, bytes) else str(content)
    if len(text) > _MAX_CONFIG_BYTES:
        raise ValueError(f"its {_CONFIG} has {len(text):,} characters")
    return text


def _member(group: h5py.Group, name: str) -> Any:
    """Return a member that is stored in this file at this path, not linked."""
    link = group.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        raise ValueError(f"'{one_line(name)}' is a link to another place, which is not followed")
    return group[name]


def _arrays(top: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Yield every array below a group with its path, each group once."""
    pending = [("", top, 0)]
    visited: set[int] = set()
    n_objects = n_bytes = 0
    while pending:
        prefix, group, depth = pending.pop()
        address = h5py.h5o.get_info(group.id).addr
        if address in visited or depth > _MAX_DEPTH:
            raise ValueError(f"group '{one_line(prefix)}' contains itself or is nested too deeply")
        visited.add(address)
        for name in group:
            n_objects += 1
            if n_objects > _MAX_OBJECTS:
                raise ValueError(f"it has more than {_MAX_OBJECTS:,} groups and arrays")
            member, path = _member(group, name), f"{prefix}{name}"
            if isinstance(member, h5py.Group):
                pending.append((f"{path}/", member, depth + 1))
            elif isinstance(member, h5py.Dataset):
                _assert_plain(member, path)
                n_bytes += 4 * int(member.size)
                if n_bytes > _MAX_BYTES:
                    raise ValueError(f"its arrays take more than {_MAX_BYTES >> 20} MiB")
                with np.errstate(all="ignore"):  # overflow is caught by the check for infinity
                    yield path, np.array(member[()], dtype=np.float32, order="C", ndmin=0)


def _assert_plain(dataset: h5py.Dataset, path: str) -> None:
    settings = dataset.id.get_create_plist()
    filters = {settings.get_filter(number)[0] for number in range(settings.get_nfilters())}
    fault = ""
    if dataset.external or dataset.is_virtual:
        fault = "lies in another file, which is not read"
    elif dataset.dtype.kind not in "fiu" or dataset.dtype.hasobject:
        fault = f"holds {one_line(dataset.dtype)} instead of numbers"
    elif dataset.size is None:
        fault = "is empty"
    elif filters - {*_FILTERS}:
        fault = f"is compressed by filter {max(filters)}, which is not known; save it with gzip"
    if fault:
        raise ValueError(f"array '{one_line(path)}' {fault}")
