"""Files of weights: the header is believed in nothing, and half precision is read."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save, save_file

from tasks.core.errors import ModelError
from tasks.core.models.tensors_file import assert_finite, read_header, read_tensors

STATE = {"a": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(7)}


def write(path: Path, header: Any, data: bytes = bytes(24)) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(kind: str = "F32", shape: Any = (2, 3), ends: Any = (0, 24)) -> dict[str, Any]:
    return {"dtype": kind, "shape": shape, "data_offsets": ends}


def test_what_was_written_is_read(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "w", {"format": "pt"})
    state = read_tensors(tmp_path / "w")
    assert state.keys() == STATE.keys()
    assert all(torch.equal(state[name], STATE[name]) for name in STATE)
    assert state["n"].dtype == torch.int64


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(tmp_path: Path, kind: torch.dtype) -> None:
    save_file({"a": STATE["a"].to(kind)}, tmp_path / "w")
    state = read_tensors(tmp_path / "w")
    assert state["a"].dtype == torch.float32 and torch.equal(state["a"], STATE["a"])


@pytest.mark.parametrize(
    ("header", "named"),
    [
        ({"a": entry("F8_E4M3", (4, 6))}, "tensor 'a' is of type F8_E4M3; convert it to F32"),
        ({"a": entry("F4")}, "of type F4"),
        ({"a": entry("C64", (3,))}, "of type C64"),
        ({"a": entry(shape=(1 << 40, 1 << 40))}, "does not lie where its shape"),
        ({"a": entry(shape=(-2, -3))}, "no sizes that are counts"),
        ({"a": entry(shape=(2.0, 3))}, "no sizes that are counts"),
        ({"a": entry(), "b": entry()}, "tensor 'b' does not lie"),
        ({"a": entry(ends=(24, 0))}, "does not lie"),
        ({"a": entry(shape=(2,), ends=(0, 8))}, "declares 8 bytes of weights, it has 24"),
        ({"a": entry(shape=(2, 6), ends=(0, 48))}, "declares 48 bytes of weights, it has 24"),
        ({"a": entry(ends="024")}, "weights file is damaged"),
        ({"a": []}, "weights file is damaged"),
        ([1], "weights file is damaged"),
        (b'{"a": {}, "a": {}}', "a name twice"),
        (b"[" * 50_000, "weights file is damaged"),
        (b"\xff", "weights file is damaged"),
        (b"", "weights file is damaged"),
        ({"\x1b[2J\n": entry("F4")}, "of type F4"),
    ],
)
def test_a_header_that_does_not_hold_is_one_line(tmp_path: Path, header: Any, named: str) -> None:
    with pytest.raises(ModelError, match=named) as error:
        read_header(write(tmp_path / "w", header))
    assert str(error.value).isprintable()


def test_a_header_longer_than_the_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    with pytest.raises(ModelError, match="its header would have 1,152,921,504,606,846,976 bytes"):
        read_header(tmp_path / "w")
    (tmp_path / "w").write_bytes(b"\1")
    with pytest.raises(ModelError, match="damaged"):
        read_header(tmp_path / "w")


def test_weights_without_numbers_are_named() -> None:
    assert_finite(STATE, "here")
    broken = {**STATE, "b": torch.tensor([1.0, float("nan")]), "c": torch.tensor(float("inf"))}
    with pytest.raises(ModelError, match=r"here: holds weights .* \(first in b\)"):
        assert_finite(broken, "here")
    assert save(broken)  # the format itself does not mind
