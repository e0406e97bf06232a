"""ONNX classifiers: the answers that the file gives, in whatever form its input and output are."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import yaml
from in_process import read_models_here
from onnx import FunctionProto, NodeProto, TensorProto, helper, numpy_helper

from tasks.core.errors import ModelError
from tasks.core.models import onnx_model
from tasks.core.models.checkpoint import empty_seen_table, load_model, save_model
from tasks.core.models.onnx_model import read_onnx
from tasks.core.models.predictor import EmotionClassifier
from tasks.core.models.spec import can_train
from tasks.core.parallel.limited_process import call_limited

SIDE = 16
LABELS = ["Happy", "neutral", "sadness"]
ABOUT = {
    "labels": LABELS,
    "input_size_px": SIDE,
    "color": "rgb",
    "layout": "nchw",
    "scaling": "0..1",
    "box_margin": 0.1,
    "output": "logits",
    "source": "made for a test",
}
RNG = np.random.default_rng(5)
WEIGHTS = RNG.normal(0, 6, (3, 3)).astype(np.float32)  # (channels, labels)
BIAS = RNG.normal(0, 1, 3).astype(np.float32)
CROPS = RNG.integers(0, 256, (5, SIDE, SIDE, 3)).astype(np.uint8)
CROPS[0, :, :, 0] = 255  # a red picture and a blue one: channels in the wrong order would show
CROPS[1, :, :, 2] = 255


@pytest.fixture(autouse=True)
def without_a_child_process(monkeypatch: pytest.MonkeyPatch) -> None:
    read_models_here(monkeypatch)


def write(
    folder: Path,
    about: dict[str, Any] | None = None,
    batch: int | str = "n",
    channels: int = 3,
    softmax: bool = False,
    kind: int = TensorProto.FLOAT,
    last: Sequence[NodeProto] = (),
    functions: Sequence[FunctionProto] = (),
) -> Path:
    """The mean of each channel, then a linear layer; the first output is not the answer.

    `last` are nodes from `means` and `scores` to the output `y`, if they are others.
    """
    described = {**ABOUT, **(about or {})}
    nhwc = described["layout"] == "nhwc"
    shape = [batch, SIDE, SIDE, channels] if nhwc else [batch, channels, SIDE, SIDE]
    single = np.float16 if kind == TensorProto.FLOAT16 else np.float32
    constants = [
        numpy_helper.from_array(WEIGHTS[:channels].astype(single), "w"),
        numpy_helper.from_array(BIAS.astype(single), "b"),
        numpy_helper.from_array(np.array([1, 2] if nhwc else [2, 3]), "axes"),
    ]
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["means"], keepdims=0),
        helper.make_node("Gemm", ["means", "w", "b"], ["scores"]),
        *(last or [helper.make_node("Softmax" if softmax else "Identity", ["scores"], ["y"])]),
        helper.make_node("ReduceSum", ["means"], ["sum"], keepdims=1),
    ]
    whole = any(node.op_type == "Cast" for node in last)
    kinds = {"sum": kind, "y": TensorProto.INT64 if whole else kind}
    outputs = [helper.make_tensor_value_info(name, its, None) for name, its in kinds.items()]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", kind, shape)], outputs, constants
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9, functions=functions)
    onnx.save(model, folder / "net.onnx")
    (folder / "net.yaml").write_text(yaml.safe_dump(described))
    return folder / "net.onnx"


def expected(pixels: np.ndarray, weights: np.ndarray = WEIGHTS) -> np.ndarray:
    scores = pixels.mean(axis=(1, 2)) @ weights + BIAS
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("batch", ["n", 4])
def test_threads_get_the_same_bits(tmp_path, batch):
    network, spec = read_onnx(write(tmp_path, batch=batch))
    recognizer = EmotionClassifier(spec, network, torch.device("cpu"))
    alone = [recognizer.predict(CROPS[:n]) for n in range(1, 6)]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda n: recognizer.predict(CROPS[:n]), [*range(1, 6)] * 16))
    assert all(np.array_equal(one, alone[at % 5]) for at, one in enumerate(together))


def ask(file: Path, crops: np.ndarray = CROPS) -> np.ndarray:
    network, spec = read_onnx(file)
    return EmotionClassifier(spec, network, torch.device("cpu")).predict(crops)


def scaled(mean: Any, std: Any, crops: np.ndarray = CROPS) -> np.ndarray:
    return (crops / 255 - np.array(mean)) / np.array(std)


PER_CHANNEL = {"mean": [0.1, 0.5, 0.9], "std": [0.5, 1.0, 0.25]}


@pytest.mark.parametrize(
    ("about", "pixels"),
    [
        ({}, scaled(0, 1)),
        ({"scaling": "-1..1"}, scaled(0.5, 0.5)),
        ({"scaling": PER_CHANNEL}, scaled(PER_CHANNEL["mean"], PER_CHANNEL["std"])),
        ({"color": "bgr"}, scaled(0, 1)[..., ::-1]),
        (
            {"color": "bgr", "scaling": PER_CHANNEL},  # in the order of the input's channels
            scaled(PER_CHANNEL["mean"], PER_CHANNEL["std"], CROPS[..., ::-1]),
        ),
        ({"layout": "nhwc"}, scaled(0, 1)),
        ({"output": "probabilities"}, scaled(0, 1)),
    ],
    ids=["plain", "scaled", "by channel", "bgr", "bgr by channel", "nhwc", "probabilities"],
)
def test_a_file_answers_as_described(
    tmp_path: Path, about: dict[str, Any], pixels: np.ndarray
) -> None:
    file = write(tmp_path, about, softmax=about.get("output") == "probabilities")
    answers = ask(file)
    assert np.abs(answers - expected(pixels)).max() < 1e-5
    assert np.abs(answers.sum(axis=1) - 1).max() < 1e-5


def test_bytes_are_given_unscaled_where_asked(tmp_path: Path) -> None:
    answers = ask(write(tmp_path, {"scaling": "0..255"}))
    assert np.abs(answers - expected(CROPS.astype(np.float64))).max() < 1e-3


def test_gray_and_half_precision(tmp_path: Path) -> None:
    gray = np.repeat(CROPS[..., :1], 3, axis=-1)
    answers = ask(write(tmp_path, {"color": "gray"}, channels=1), gray)
    assert np.abs(answers - expected(gray[..., :1] / 255, WEIGHTS[:1])).max() < 1e-5
    half = ask(write(tmp_path, kind=TensorProto.FLOAT16))
    assert np.abs(half - expected(scaled(0, 1))).max() < 0.02


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_a_fixed_batch_is_filled_up(tmp_path: Path, batch: int) -> None:
    answers = ask(write(tmp_path, batch=batch))
    assert np.abs(answers - expected(scaled(0, 1))).max() < 1e-5


def test_a_certain_answer_stays_finite(tmp_path: Path) -> None:
    file = write(tmp_path, {"scaling": "0..255", "output": "probabilities"}, softmax=True)
    answers = ask(file)
    assert np.isfinite(answers).all() and answers.max() > 0.999


def test_a_models_folder_keeps_the_file_and_cannot_be_trained(tmp_path: Path) -> None:
    file = write(tmp_path)
    network, spec = read_onnx(file)
    folder = tmp_path / "models/base"
    kept = save_model(folder, network, spec, empty_seen_table())
    assert kept.version == spec.version and spec.labels == ("happiness", "neutral", "sadness")
    assert (folder / "model.onnx").read_bytes() == file.read_bytes()
    file.unlink()
    recognizer = EmotionClassifier.load(folder, "cpu")
    assert np.abs(recognizer.predict(CROPS) - expected(scaled(0, 1))).max() < 1e-5
    assert not can_train(recognizer.spec)
    (folder / "model.onnx").write_bytes(b"another")
    with pytest.raises(ModelError, match=r"not the weights that model\.json describes"):
        load_model(folder)


@pytest.mark.parametrize(
    ("about", "named"),
    [
        ({"labels": ["happy", "sad"]}, "names 2 labels"),
        ({"labels": ["happy", "sad", "bored"]}, "bored not known"),
        ({"labels": ["happy", "happiness", "sad"]}, "each emotion once"),
        ({"input_size_px": 32}, r"says one input of \[3, 32, 32\]"),
        ({"color": "gray", "scaling": "0..1"}, r"says one input of \[1, 16, 16\]"),
        ({"scaling": {"mean": [0.5], "std": [0.5]}}, "3 values for color rgb"),
        ({"color": "rbg"}, "color: "),
        ({"margin": 0.1}, "margin: "),
        ({"box_margin": None}, "box_margin: "),
    ],
)
def test_a_description_that_does_not_fit_is_one_line(
    tmp_path: Path, about: dict[str, Any], named: str
) -> None:
    with pytest.raises(ModelError, match=named) as error:
        read_onnx(write(tmp_path, about))
    assert "\n" not in str(error.value)


def missing_yaml(file: Path) -> None:
    file.with_suffix(".yaml").unlink()


def torn_yaml(file: Path) -> None:
    file.with_suffix(".yaml").write_text("labels: [happy")


def torn_network(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:60])


def missing_network(file: Path) -> None:
    file.unlink()


def weights_elsewhere(file: Path) -> None:
    onnx.save(onnx.load(file), file, save_as_external_data=True, size_threshold=0, location="w.bin")


def yaml_bomb(file: Path) -> None:
    merged = "".join(
        f"k{n}: &k{n} {{<<: [{', '.join([f'*k{n - 1}'] * 9)}]}}\n" for n in range(1, 30)
    )
    file.with_suffix(".yaml").write_text("k0: &k0 {a: 1}\n" + merged)


def doubled_key(file: Path) -> None:
    with file.with_suffix(".yaml").open("a") as text:
        text.write("output: probabilities\n")


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (missing_yaml, r"net\.yaml: missing"),
        (torn_yaml, r"net\.yaml: is not valid YAML"),
        (torn_network, "is not a valid ONNX file"),
        (missing_network, "no such ONNX file"),
        (weights_elsewhere, "its weights must be inside"),
        (yaml_bomb, r"net\.yaml: is not valid YAML \(is larger than"),
        (doubled_key, r"key 'output' occurs twice"),
    ],
)
def test_damaged_or_missing_files_are_one_line(
    tmp_path: Path, damage: Callable[[Path], None], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where onnxruntime would look for weights outside
    file = write(tmp_path)
    damage(file)
    with pytest.raises(ModelError, match=named) as error:
        read_onnx(file)
    assert "\n" not in str(error.value)


def node(kind: str, inputs: str, output: str, **attributes: Any) -> NodeProto:
    return helper.make_node(kind, inputs.split(), [output], **attributes)


def number(value: float, name: str) -> NodeProto:
    return helper.make_node(
        "Constant", [], [name], value=numpy_helper.from_array(np.float32(value))
    )


PERCENT = [node("Softmax", "scores", "s"), number(100, "c"), node("Mul", "s c", "y")]
SAME = [node("Identity", "scores", "y")]


@pytest.mark.parametrize(
    ("output", "last", "named"),
    [
        ("logits", [number(-100, "c"), node("Min", "scores c", "l"), node("Log", "l", "y")], "NaN"),
        ("logits", [number(0, "c"), node("Div", "scores c", "y")], "NaN or infinite"),
        ("probabilities", SAME, "which are not probabilities; .* set output: logits"),
        ("probabilities", [node("Sigmoid", "scores", "y")], "instead of 1"),
        ("probabilities", PERCENT, r"percentages \(each row sums to 100\)"),
        ("logits", PERCENT, r"percentages \(each row sums to 100\)"),
        ("logits", [node("Softmax", "scores", "y")], "set output: probabilities in the YAML"),
    ],
    ids=["nan", "infinite", "scores", "sigmoid", "percent", "percent as logits", "softmax"],
)
def test_outputs_that_are_not_what_the_yaml_declares_are_refused(
    tmp_path: Path, output: str, last: list[NodeProto], named: str
) -> None:
    with pytest.raises(ModelError, match=rf"net\.onnx: .*{named}") as error:
        read_onnx(write(tmp_path, {"output": output}, last=last))
    assert "\n" not in str(error.value)


def test_whole_numbers_are_no_answer(tmp_path: Path) -> None:
    last = [node("Cast", "scores", "y", to=TensorProto.INT64)]
    with pytest.raises(ModelError, match="must hold 3 floating-point numbers per picture"):
        read_onnx(write(tmp_path, last=last))


def test_an_answer_without_numbers_is_refused_when_it_comes(tmp_path: Path) -> None:
    """Red pictures give the root of a negative number, which no probe picture does."""
    weights = numpy_helper.from_array(np.array([[-1], [1], [0]], np.float32))
    last = [
        helper.make_node("Constant", [], ["wr"], value=weights),
        *(node("MatMul", "means wr", "d"), number(0.7, "c"), node("Add", "d c", "e")),
        *(node("Sqrt", "e", "root"), node("Add", "scores root", "y")),
    ]
    file = write(tmp_path, last=last)
    assert np.isfinite(ask(file, CROPS[1:])).all()
    red = np.zeros_like(CROPS)
    red[3, :, :, 0] = 255
    with pytest.raises(ModelError, match=r"net\.onnx: gives NaN .* for 1 of 5 pictures"):
        ask(file, red)


def test_a_softmax_in_8_bits_may_be_a_little_off(tmp_path: Path) -> None:
    zero = helper.make_tensor("zero", TensorProto.UINT8, [], [0])
    last = [
        *(node("Softmax", "scores", "s"), number(1 / 256, "step")),
        helper.make_node("Constant", [], ["z"], value=zero),
        *(node("QuantizeLinear", "s step z", "q"), node("DequantizeLinear", "q step z", "y")),
    ]
    answers = ask(write(tmp_path, {"output": "probabilities"}, last=last))
    assert np.abs(answers - expected(scaled(0, 1))).max() < 0.01


def test_a_graph_for_one_image_is_asked_about_one_at_a_time(tmp_path: Path) -> None:
    shape = numpy_helper.from_array(np.array([1, 3]))
    last = [
        helper.make_node("Constant", [], ["one"], value=shape),
        node("Reshape", "scores one", "y"),
    ]
    assert np.abs(ask(write(tmp_path, last=last)) - expected(scaled(0, 1))).max() < 1e-5


def test_a_loop_is_refused_wherever_it_is(tmp_path: Path) -> None:
    body = helper.make_graph(
        [node("Identity", "c", "c2"), node("Identity", "v", "v2")],
        "b",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("c2", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v2", TensorProto.FLOAT, None),
        ],
    )
    yes = helper.make_tensor("yes", TensorProto.BOOL, [], [True])
    loop = helper.make_node("Loop", ["", "t", "x"], ["y"], body=body)
    nodes = [helper.make_node("Constant", [], ["t"], value=yes), loop]
    opset = [helper.make_opsetid("", 18)]
    function = helper.make_function("own", "F", ["x"], ["y"], nodes, opset)
    named = r"holds a Loop \(without a name\)"
    with pytest.raises(ModelError, match=named):
        read_onnx(
            write(tmp_path, last=[node("F", "scores", "y", domain="own")], functions=[function])
        )
    nodes[1].input[2] = "scores"
    with pytest.raises(ModelError, match=named):
        read_onnx(write(tmp_path, last=nodes))


def doubling(depth: int) -> list[FunctionProto]:
    """Functions that call the next one twice: 2 ** depth nodes when they are written out."""
    opset = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    calls = [
        [node(f"F{n + 1}", "a", "c", domain="own"), node(f"F{n + 1}", "c", "b", domain="own")]
        for n in range(depth)
    ]
    calls.append([node("Identity", "a", "b")])
    return [
        helper.make_function("own", f"F{n}", ["a"], ["b"], nodes, opset)
        for n, nodes in enumerate(calls)
    ]


@pytest.fixture
def in_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_model, "call_limited", call_limited)


@pytest.mark.usefixtures("in_a_child")
def test_what_does_not_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_model, "_SECONDS", 1.0)
    last = [node("F0", "scores", "y", domain="own")]
    file = write(tmp_path, last=last, functions=doubling(40))
    started = time.monotonic()
    with pytest.raises(ModelError, match=r"net\.onnx: was tried .* took longer than 1") as error:
        read_onnx(file)
    assert time.monotonic() - started < 20 and "\n" not in str(error.value)


@pytest.mark.usefixtures("in_a_child")
def test_what_fills_the_memory_is_refused_and_a_sound_file_is_not(tmp_path: Path) -> None:
    assert np.abs(ask(write(tmp_path)) - expected(scaled(0, 1))).max() < 1e-5
    shape = numpy_helper.from_array(np.array([10**10]))
    last = [
        helper.make_node("Constant", [], ["n"], value=shape),
        *(node("ConstantOfShape", "n", "big"), node("ReduceMax", "big", "most", keepdims=0)),
        node("Add", "scores most", "y"),
    ]
    with pytest.raises(ModelError, match=r"net\.onnx: cannot be run"):
        read_onnx(write(tmp_path, last=last))
