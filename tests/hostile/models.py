"""Cases of the campaigns of model files: ONNX, Keras (HDF5) and safetensors, with what is beside.

A file is damaged byte by byte, or rebuilt with one field changed, which gets further in. The
readers' child process is a fork here, which answers many calls, since to start Python for each of
hundreds of files would take minutes; it has the same kinds of limits.
"""

import importlib
import json
import os
import signal
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import numpy as np
import onnx
import torch
import yaml
from hostile.campaign import mutate, rejected
from keras_writer import head, in_a_line, layer, mobilenet, write_flat
from onnx import TensorProto, helper, numpy_helper

from tasks.core import errors
from tasks.core.errors import AffectGapError, ModelError
from tasks.core.files import sha256_of
from tasks.core.models import onnx_model
from tasks.core.models.backbones import build_module
from tasks.core.models.checkpoint import empty_seen_table, save_model
from tasks.core.models.label_order import probe_pixels
from tasks.core.models.predictor import EmotionClassifier
from tasks.core.models.spec import CHANNELS, ModelSpec
from tasks.core.parallel import limited_process
from tasks.core.parallel.limited_process import LimitError
from tasks.train.pretrained import hdf5_arrays, keras_file
from tasks.train.pretrained.keras_networks import read_mobilenet

_SIDE_PX = 16
_CPU_S = 3  # that a forked reader may take for one call
_LABELS = ("happiness", "neutral", "sadness")
# What a field is replaced by: wrong types, numbers without sense, text that terminals act upon.
_ODD: tuple[Any, ...] = (
    *(None, True, 0, -1, 1, 3, 1 << 40, 1 << 70, 1e308, -0.5, float("nan"), float("inf")),
    *("", "relu6", "\x1b]0;x\x07\n", "한" * 300, [], [[]], {}, {"name": 1}, [None, "a"], "rgb"),
)


def check_model(random: Random, folder: Path) -> str:
    """Check a file of one of the three kinds."""
    kind = random.choice(("onnx", "hdf5", "safetensors"))
    check = {"onnx": check_onnx, "hdf5": check_hdf5, "safetensors": check_safetensors}[kind]
    return f"{kind} {check(random, folder)}"


def check_onnx(random: Random, folder: Path) -> str:
    """Damage an ONNX file, its graph or its YAML, then read it and ask it."""
    file = folder / "net.onnx"
    model, about = onnx.ModelProto(), dict(_ABOUT)
    model.CopyFrom(_onnx_model())
    way = random.randrange(3)
    if way == 0:
        _edit_message(model, random)
    if way == 1:
        about[random.choice(list(about))] = random.choice(_ODD)
    content = model.SerializeToString()
    file.write_bytes(mutate(content, random) if way == 2 else content)
    text = yaml.safe_dump(about).encode()
    (folder / "net.yaml").write_bytes(mutate(text, random) if random.random() < 0.1 else text)
    with _Forked():
        return _outcome(lambda: _ask(*reversed(onnx_model.read_onnx(file))))


def check_hdf5(random: Random, folder: Path) -> str:
    """Damage a Keras file, or the settings of its layers, then read it."""
    file = folder / "model.h5"
    if random.random() < 0.4:
        return _check_layers(random, file)
    content = _keras_file() if random.random() < 0.6 else _edited_keras_file(random, folder)
    file.write_bytes(mutate(content, random) if random.random() < 0.9 else content)
    with _Forked():
        return _outcome(lambda: keras_file.read_layers(file))


def check_safetensors(random: Random, folder: Path) -> str:
    """Damage a model's folder, then load it and ask it."""
    for name, content in _folder_files().items():
        (folder / name).write_bytes(content)
    weights, about = folder / "model.safetensors", folder / "model.json"
    spec = json.loads(about.read_text())
    way = random.randrange(3)
    if way == 0:
        weights.write_bytes(mutate(weights.read_bytes(), random))
    if way == 1:
        weights.write_bytes(_edited_header(weights.read_bytes(), random))
    if way == 2:
        _edit_json(spec, random)
    spec["version"] = sha256_of(weights)[:12]
    text = json.dumps(spec).encode()
    about.write_bytes(mutate(text, random) if random.random() < 0.1 else text)
    return _outcome(lambda: EmotionClassifier.load(folder, "cpu"))


def _outcome(read: Any) -> str:
    """Read, ask if there is something to be asked, and check the answer."""
    try:
        recognizer = read()
        if isinstance(recognizer, EmotionClassifier):
            spec = recognizer.spec
            pixels = probe_pixels(spec.input_size_px, CHANNELS[spec.color])
            answers = recognizer.predict_prepared(pixels)
            assert answers.shape == (len(pixels), len(spec.labels))
            assert np.abs(answers.sum(axis=1) - 1).max() < 1e-3
    except AffectGapError as error:
        assert isinstance(error, ModelError), type(error)
        return rejected(error)
    return "accepted"


def _ask(spec: ModelSpec, network: torch.nn.Module) -> EmotionClassifier:
    return EmotionClassifier(spec, network, torch.device("cpu"))


# ONNX --------------------------------------------------------------------------------------------

_ABOUT = {
    "labels": list(_LABELS),
    "input_size_px": _SIDE_PX,
    "color": "rgb",
    "layout": "nchw",
    "scaling": "0..1",
    "box_margin": 0.1,
    "output": "logits",
    "source": "made for a test",
}


@cache
def _onnx_model() -> onnx.ModelProto:
    """A convolution, an If, the mean of each map, and a linear layer."""
    numbers = np.random.default_rng(0)
    constants = [
        numpy_helper.from_array(numbers.normal(size=(4, 3, 3, 3)).astype(np.float32), "k"),
        numpy_helper.from_array(numbers.normal(size=(4, 3)).astype(np.float32), "w"),
        numpy_helper.from_array(np.array([2, 3]), "axes"),
        numpy_helper.from_array(np.array(True), "yes"),
    ]
    output = helper.make_tensor_value_info("i", TensorProto.FLOAT, None)
    branch = helper.make_graph([helper.make_node("Relu", ["c"], ["i"])], "b", [], [output])
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("If", ["yes"], ["r"], then_branch=branch, else_branch=branch),
        helper.make_node("ReduceMean", ["r", "axes"], ["m"], keepdims=0),
        helper.make_node("MatMul", ["m", "w"], ["y"]),
    ]
    entry = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, _SIDE_PX, _SIDE_PX])
    answer = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])
    graph = helper.make_graph(nodes, "g", [entry], [answer], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


_OPERATORS = (
    "Loop",
    "Scan",
    "Softmax",
    "Log",
    "ConstantOfShape",
    "Expand",
    "Tile",
    "Range",
    "LSTM",
)


def _edit_message(message: Any, random: Random) -> None:
    """Change one field of a message or of one inside it."""
    set_fields = message.ListFields()
    field, value = random.choice(set_fields) if set_fields else (None, None)
    if field is None:
        return
    items = list(value) if _is_repeated(field) else [value]
    if field.message_type is not None and items and random.random() < 0.85:
        _edit_message(random.choice(items), random)
    elif _is_repeated(field):
        at = random.randrange(len(items))
        items[at : at + 1] = random.choice(([], [items[at]] * 2, [items[at]] * 40))
        message.ClearField(field.name)
        getattr(message, field.name).extend(items)
    elif field.cpp_type == field.CPPTYPE_STRING:
        text = random.choice((*_OPERATORS, "", "y", "\x1b[2J", "q" * 3000))
        setattr(message, field.name, text if isinstance(value, str) else text.encode())
    elif field.message_type is not None:
        message.ClearField(field.name)
    else:
        largest = 127 if field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_ENUM) else 1 << 62
        try:
            setattr(message, field.name, random.choice((0, 1, 2, 7, 16, largest, -1)))
        except ValueError:
            message.ClearField(field.name)


def _is_repeated(field: Any) -> bool:
    return bool(field.is_repeated)


# Keras -------------------------------------------------------------------------------------------


@cache
def _keras_file() -> bytes:
    """A file of 20 kB with a convolution, a normalization and a dense layer."""
    numbers = np.random.default_rng(0)
    four = {name: np.ones(4, np.float32) for name in ("gamma", "beta", "moving_mean")}
    kernel = numbers.normal(size=(3, 3, 3, 4)).astype(np.float32)
    layers = [
        layer("InputLayer", "input", batch_input_shape=[None, 16, 16, 3]),
        layer("Conv2D", "conv", {"kernel": kernel}, kernel_size=[3, 3]),
        layer("BatchNormalization", "bn", {**four, "moving_variance": np.ones(4)}, epsilon=0.001),
        layer("Dense", "dense", {"kernel": np.ones((4, 3)), "bias": np.zeros(3)}, units=3),
    ]
    with TemporaryDirectory() as folder:
        return write_flat(Path(folder) / "model.h5", layers).read_bytes()


def _edited_keras_file(random: Random, folder: Path) -> bytes:
    """Put something into the file that HDF5 allows and a Keras file does not have."""
    path = folder / "edited.h5"
    path.write_bytes(_keras_file())
    with h5py.File(path, "r+") as file:
        place = file[random.choice(["model_weights", "model_weights/conv"])]
        kind = random.randrange(8)
        if kind == 0:
            place["cycle"] = file["model_weights"]
        if kind == 1:
            place["link"] = h5py.ExternalLink("/etc/passwd", "/x")
        if kind == 2:
            place.create_dataset("k", (64,), "u1", external=[("/etc/passwd", 0, 64)])
        if kind == 3:
            place.create_dataset("k", (1 << 28,), "f4", chunks=(1 << 20,), compression="gzip")
        if kind == 4:
            place["texts"] = ["a", "b"]
        if kind == 5:
            place.create_dataset("refs", (2,), h5py.regionref_dtype)
        if kind == 6:
            file.attrs["model_config"] = random.choice(["[" * 5000, "{}", 7, [1.5, 2.5], b"\xff{"])
        if kind == 7:
            place.create_dataset("empty", dtype="f4", data=h5py.Empty("f4"))
    return path.read_bytes()


@cache
def _mobilenet() -> tuple[list[Any], dict[str, np.ndarray]]:
    layers = [*mobilenet(), *head()]
    arrays = {
        f"{one['config']['name']}/{name}:0": array
        for one in layers
        for name, array in one["arrays"].items()
    }
    return in_a_line(layers), arrays


def _check_layers(random: Random, file: Path) -> str:
    """Change the settings of a MobileNet, as if they came from a file."""
    entries, arrays = _mobilenet()
    config = {"config": {"layers": json.loads(json.dumps(entries))}}
    for _ in range(random.randint(1, 2)):
        _edit_json(random.choice(config["config"]["layers"]), random)
    arrays = dict(arrays)
    if random.random() < 0.3:
        name = random.choice(list(arrays))
        arrays[name] = random.choice((arrays[name][..., :1], np.float32(1), arrays[name].ravel()))
    reader = hdf5_arrays.read_hdf5
    keras_file.read_hdf5 = lambda _path: (json.dumps(config), arrays)
    try:
        return _outcome(lambda: read_mobilenet(file))
    finally:
        keras_file.read_hdf5 = reader


# safetensors -------------------------------------------------------------------------------------


@cache
def _folder_files() -> dict[str, bytes]:
    spec = ModelSpec(
        architecture="lenet5",
        labels=_LABELS,
        input_size_px=32,
        color="gray",
        mean=(0.5,),
        std=(0.5,),
        version="",
        source="made for a test",
    )
    torch.manual_seed(0)
    with TemporaryDirectory() as folder:
        save_model(Path(folder), build_module("lenet5", 3, 1), spec, empty_seen_table())
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def _edited_header(content: bytes, random: Random) -> bytes:
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    entry = random.choice(list(header.values()))
    kind = random.randrange(4)
    if kind == 0:
        types = ("BF16", "F16", "F64", "I64", "BOOL", "U8", "F8_E4M3", "F4", "C64", 7, None)
        entry["dtype"] = random.choice(types)
    if kind == 1:
        entry["shape"] = random.choice(([1 << 40], [-1, -1], [], [0], [2.5], "3", None, [[1]]))
    if kind == 2:
        entry["data_offsets"] = random.choice(([0, 0], [0, 1 << 60], [-4, 0], [4], None, [4, 0]))
    if kind == 3:
        _edit_json(header, random)
    text = json.dumps(header)
    if random.random() < 0.2:  # a name twice
        text = text[:-1] + "," + text[1:]
    raw = text.encode()
    return len(raw).to_bytes(8, "little") + raw + content[end:]


def _edit_json(value: Any, random: Random) -> None:
    """Replace, remove or add something in a mapping or a list, or in one inside it."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    if not keys:
        return
    key = random.choice(keys)
    inside = value[key]
    if isinstance(inside, dict | list) and inside and random.random() < 0.7:
        _edit_json(inside, random)
    elif random.random() < 0.2:
        del value[key]
    else:
        value[key] = random.choice(_ODD)


# Child processes ---------------------------------------------------------------------------------


class _Forked:
    """Lets the readers ask one forked process after the other instead of starting Python."""

    def __enter__(self) -> None:
        self._before = limited_process.call_limited
        self._set(_call_forked)

    def __exit__(self, *_error: object) -> None:
        self._set(self._before)

    def _set(self, function: Any) -> None:
        hdf5_arrays.call_limited = onnx_model.call_limited = function


class _Reader:
    """A forked process that answers calls; a new one where the last call ended it."""

    pid = 0

    def call(self, target: str, arguments: tuple[Any, ...]) -> dict[str, Any]:
        if not self.pid:
            self._start()
        self._to.write(json.dumps([target, arguments]) + "\n")
        self._to.flush()
        line = self._from.readline()
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        name = "time" if os.WTERMSIG(status) == signal.SIGPROF else "crash"
        raise LimitError(f"ended its reader (status {status})", name)

    def _start(self) -> None:
        (in_child, self_to), (self_from, out_child) = os.pipe(), os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.close(self_to)
            os.close(self_from)
            _answer_calls(in_child, out_child)
        os.close(in_child)
        os.close(out_child)
        self._to, self._from = os.fdopen(self_to, "w"), os.fdopen(self_from)


_READER = _Reader()


def _call_forked(target: str, *arguments: Any, seconds: float, memory_mb: int) -> Any:
    answer = _READER.call(target, arguments)
    if "result" in answer:
        return answer["result"]
    if answer["error"] == "MemoryError":
        raise LimitError("took too much memory", "memory")
    kind = getattr(errors, answer["error"], None)
    assert kind is not None, answer  # the reader let an error of a library through
    raise kind(answer["text"])


def _answer_calls(reading: int, writing: int) -> None:
    """Answer calls in this process, which is the fork, until the other side closes."""
    try:
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        with os.fdopen(reading) as calls, os.fdopen(writing, "w") as answers:
            for line in calls:
                target, arguments = json.loads(line)
                module, _, function = target.partition(":")
                signal.setitimer(signal.ITIMER_PROF, _CPU_S)
                try:
                    called = getattr(importlib.import_module(module), function)
                    answer = {"result": called(*arguments)}
                except Exception as error:  # noqa: BLE001  whatever failed travels back
                    answer = {"error": type(error).__name__, "text": str(error)}
                signal.setitimer(signal.ITIMER_PROF, 0)
                answers.write(json.dumps(answer) + "\n")
                answers.flush()
    finally:
        os._exit(0)


_PRELOADED = [importlib.import_module(name) for name in ("onnxruntime",)]  # before forking
