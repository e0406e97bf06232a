"""HDF5 files: what is read is what lies in them, and nothing else ends without a line."""

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from in_process import read_models_here

from tasks.core.errors import ModelError
from tasks.core.parallel.limited_process import call_limited
from tasks.train.pretrained import hdf5_arrays
from tasks.train.pretrained.hdf5_arrays import read_hdf5
from tasks.train.pretrained.keras_file import read_layers

KERNEL = np.arange(12, dtype=np.float16).reshape(3, 4)


@pytest.fixture(autouse=True)
def without_a_child_process(monkeypatch: pytest.MonkeyPatch) -> None:
    read_models_here(monkeypatch)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with one layer, and a secret beside it."""
    (tmp_path / "secret").write_bytes(bytes(range(64)))
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["secret"] = np.ones(4)
    file = tmp_path / "model.h5"
    with h5py.File(file, "w") as made:
        made["model_weights/dense/kernel:0"] = KERNEL
        made["model_weights/dense/bias:0"] = np.ones((), ">i4")
        made.attrs["model_config"] = json.dumps({"config": {"layers": []}})
    return file


def test_arrays_are_read_by_their_path_as_float32(path: Path) -> None:
    config, arrays = read_hdf5(path)
    assert json.loads(config) == {"config": {"layers": []}}
    assert arrays.keys() == {"dense/kernel:0", "dense/bias:0"}
    assert all(array.dtype == np.float32 for array in arrays.values())
    assert np.array_equal(arrays["dense/kernel:0"], KERNEL) and arrays["dense/bias:0"] == 1


def external_link(file: h5py.File) -> None:
    file["model_weights/x"] = h5py.ExternalLink("other.h5", "/secret")


def external_weights(file: h5py.File) -> None:
    group = file["model_weights"]
    del file["model_weights"]
    file["model_weights"] = h5py.ExternalLink("other.h5", "/")
    assert group


def soft_link(file: h5py.File) -> None:
    file["model_weights/x"] = h5py.SoftLink("/model_weights/dense")


def external_storage(file: h5py.File) -> None:
    secret = str(Path(file.filename).with_name("secret"))
    file.create_dataset("model_weights/x", (64,), "u1", external=[(secret, 0, 64)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "secret", (4,))
    file.create_virtual_dataset("model_weights/x", layout)


def cycle(file: h5py.File) -> None:
    file["model_weights/dense/again"] = file["model_weights"]


def deep(file: h5py.File) -> None:
    file.create_group("model_weights/" + "/".join("g" * 40))


def bomb(file: h5py.File) -> None:
    settings = {"chunks": (1 << 20,), "compression": "gzip"}
    file.create_dataset("model_weights/x", (1 << 28,), "f4", **settings)


def foreign_filter(file: h5py.File) -> None:
    file.create_dataset("model_weights/x", (100,), "f4", chunks=(10,), compression="lzf")


def texts(file: h5py.File) -> None:
    file["model_weights/x"] = ["a", "b"]


def regions(file: h5py.File) -> None:
    file.create_dataset("model_weights/x", (2,), h5py.regionref_dtype)


def config_of_numbers(file: h5py.File) -> None:
    file.attrs["model_config"] = [1, 2]


def no_config(file: h5py.File) -> None:
    del file.attrs["model_config"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (external_link, "'x' is a link to another place"),
        (external_weights, "'model_weights' is a link to another place"),
        (soft_link, "'x' is a link to another place"),
        (external_storage, "array 'x' lies in another file"),
        (virtual, "array 'x' lies in another file"),
        (cycle, "contains itself"),
        (deep, "nested too deeply"),
        (bomb, "take more than 256 MiB"),
        (foreign_filter, "filter 32000"),
        (texts, "holds object instead of numbers"),
        (regions, "holds object instead of numbers"),
        (config_of_numbers, "its model_config is not text"),
        (no_config, "save the model with model.save, not its weights"),
    ],
)
def test_what_is_no_plain_array_in_the_file_is_refused(
    path: Path, change: Callable[[h5py.File], None], named: str
) -> None:
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(ModelError, match=rf"model\.h5: is not a complete Keras .*{named}") as error:
        read_hdf5(path)
    assert "\n" not in str(error.value)


def test_a_file_of_too_many_arrays_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5_arrays, "_MAX_OBJECTS", 2)
    with pytest.raises(ModelError, match="more than 2 groups and arrays"):
        read_hdf5(path)


def test_an_error_of_any_type_in_the_library_is_one_line(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.find(b"HEAP") + 16] ^= 7  # h5py raises RuntimeError: bad heap free list
    path.write_bytes(content)
    with pytest.raises(ModelError, match="bad heap free list") as error:
        read_hdf5(path)
    assert "\n" not in str(error.value)


def test_a_nested_config_is_one_line(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["model_config"] = "[" * 60_000
    with pytest.raises(ModelError, match="is not a complete Keras model file"):
        read_layers(path)


def test_a_reader_that_crashes_or_hangs_ends_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hdf5_arrays, "call_limited", call_limited)
    assert read_hdf5(path)[1].keys() == {"dense/kernel:0", "dense/bias:0"}  # in a child process
    monkeypatch.setattr(hdf5_arrays, "_MEMORY_MB", 50)  # not even Python starts in so little
    with pytest.raises(ModelError, match=r"reading it ended its reader") as error:
        read_hdf5(path)
    assert "\n" not in str(error.value)
