"""ONNX files from outside: opened and tried in a child process before this process opens them.

A graph is a program. Refused are files with a `Loop`, which may never end, and files that refer to
weights in other files, which onnxruntime would read from wherever the file says. What else a graph
may do (fill the memory, crash the parser, expand without end) ends the child. Without torch, since
the child imports this module.
"""

import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tasks.core.errors import ModelError
from tasks.core.models.answers import (
    QUANTIZED_SUM_TOLERANCE,
    SUM_TOLERANCE,
    Output,
    fault_of_probes,
    probe_pixels,
)
from tasks.core.text import one_line

MAX_BYTES = 2 << 30  # what a protobuf message can hold
_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_QUANTIZED = ("DequantizeLinear", "QLinearSoftmax")
# Only paths below this folder, which is none, are read as weights outside the file.
_NO_FOLDER = "/dev/null/no-weights-outside"


class Expected(NamedTuple):
    """What the description beside a file says of its input and output.

    `scale` and `offset` give the input of a pixel from 0 to 255, one value per channel.
    """

    side_px: int
    n_labels: int
    layout: str
    output: Output
    scale: tuple[float, ...]
    offset: tuple[float, ...]

    def input_shape(self) -> list[int]:
        """Return the shape of one picture in the order of the input's axes."""
        sides = [self.side_px, self.side_px]
        return [*sides, len(self.scale)] if self.layout == "nhwc" else [len(self.scale), *sides]


class Found(NamedTuple):
    """What a file turned out to be.

    Attributes
    ----------
    input_name, output_name
        Of the input, and of the output with one number per label.
    half
        Whether the input is float16.
    at_once
        Pictures per call, where the file fixes it; None: any number.
    sum_tolerance
        How far a row of probabilities may be from a sum of 1.
    """

    input_name: str
    output_name: str
    half: bool
    at_once: int | None
    sum_tolerance: float


def open_session(content: bytes, name: str, n_threads: int) -> Any:
    """Open an ONNX file in this process; raises ModelError with one line that begins with `name`.

    Only for files that `examine` accepted, or that this project wrote itself.
    """
    import onnxruntime  # slow to import, and seldom needed

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # it prints what it raises as well
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", _NO_FOLDER
    )
    try:
        # From memory: a file whose weights lie in a second file would not survive being copied.
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - onnxruntime has many types of its own
        raise ModelError(
            f"{name}: is no ONNX file that can be run; its weights must be inside "
            f"({one_line(error)})"
        ) from None


def run_session(session: Any, found: Found, pictures: np.ndarray, name: str) -> np.ndarray:
    """Return the outputs for some pictures.

    Parameters
    ----------
    session
        What `open_session` returned.
    found
        What `examine` returned for the same file.
    pictures
        `(N, C, S, S)` or `(N, S, S, C)`, as the file takes them.
    name
        The file, for messages.

    Returns
    -------
    numpy.ndarray
        `(N, K)` float32, unchecked.

    Raises
    ------
    ModelError
        One line, where onnxruntime fails.
    """
    pictures = pictures.astype(np.float16 if found.half else np.float32, copy=False)
    at_once = found.at_once or max(1, len(pictures))
    parts = []
    for start in range(0, len(pictures), at_once):
        part = pictures[start : start + at_once]
        filled = np.concatenate([part, np.repeat(part[:1], at_once - len(part), 0)])
        (answers,) = _run(session, [found.output_name], found.input_name, filled, name)
        if np.size(answers) % at_once:
            raise ModelError(f"{name}: gives another number of outputs from call to call")
        parts.append(np.reshape(answers, (at_once, -1))[: len(part)])
    return np.concatenate(parts).astype(np.float32)


def examine_file(path: str, name: str, sha256: str, expected: list[Any]) -> list[Any]:
    """Examine a file; what `call_limited` calls in a child process.

    Parameters
    ----------
    path
        An absolute path.
    name
        The file as the user named it, for messages.
    sha256
        Of the content that the caller will open.
    expected
        The fields of `Expected`, as JSON holds them.

    Returns
    -------
    list
        The fields of `Found`.

    Raises
    ------
    ModelError
        One line; see `examine`.
    """
    content = Path(path).read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ModelError(f"{name}: was changed while it was read")
    return list(examine(content, name, Expected(*expected)))


def examine(content: bytes, name: str, expected: Expected, session: Any = None) -> Found:
    """Find out what an ONNX file takes and gives, by its graph and by the probe pictures.

    Parameters
    ----------
    content
        The file.
    name
        The file as the user named it, for messages.
    expected
        What its description says.
    session
        The file opened; None: it is opened here.

    Raises
    ------
    ModelError
        One line: the graph is refused, the input or the output is not as described, or the
        answers to the probe pictures are not finite or not what the description declares.
    """
    operators = _operators(content, name)
    session = session or open_session(content, name, 1)
    tolerance = QUANTIZED_SUM_TOLERANCE if operators & {*_QUANTIZED} else SUM_TOLERANCE
    entry = _checked_input(session, name, expected)
    fixed = entry.shape[0] if isinstance(entry.shape[0], int) else None
    pixels = probe_pixels(expected.side_px, len(expected.scale))
    scale, offset = (np.asarray(v, dtype=np.float32) for v in (expected.scale, expected.offset))
    normal = pixels * scale + offset
    pictures = normal if expected.layout == "nhwc" else normal.transpose(0, 3, 1, 2)
    found = Found(entry.name, "", entry.type == "tensor(float16)", fixed, tolerance)
    found = _with_output(session, found, pictures, name, expected.n_labels)
    rows = run_session(session, found, pictures, name)
    fault = fault_of_probes(rows, expected.output, tolerance)
    if fault:
        raise ModelError(f"{name}: {fault}")
    return found


def _checked_input(session: Any, name: str, expected: Expected) -> Any:
    """Return the one input, where it takes what the description says."""
    inputs = session.get_inputs()
    wanted = expected.input_shape()
    first = inputs[0] if len(inputs) == 1 else None
    if first is not None and first.type in _TYPES and len(first.shape) == 4:
        axes = zip(first.shape[1:], wanted, strict=True)
        batch = first.shape[0]
        if all(not isinstance(has, int) or has == want for has, want in axes) and (
            not isinstance(batch, int) or 0 < batch * math.prod(wanted) < MAX_BYTES
        ):
            return first
    taken = "; ".join(f"{entry.name} {entry.type} {entry.shape}" for entry in inputs[:4])
    raise ModelError(
        f"{name}: takes {one_line(taken) or 'nothing'}, but its YAML says one input of {wanted} "
        f"({expected.layout}, floating point)"
    )


def _with_output(
    session: Any, found: Found, pictures: np.ndarray, name: str, n_labels: int
) -> Found:
    """Name the output with one number per label, and how many pictures go at once.

    A graph that takes any number of pictures by its declaration, but only one in truth, is asked
    about one at a time.
    """
    shapes: list[tuple[int, ...]] = []
    for at_once in [found.at_once] if found.at_once else [n_labels + 1, 1]:
        asked = np.resize(pictures, (at_once, *pictures.shape[1:]))
        asked = asked.astype(np.float16 if found.half else np.float32)
        try:
            answers = _run(session, None, found.input_name, asked, name)
        except ModelError:
            if at_once == 1 or found.at_once:
                raise
            continue
        names = [output.name for output in session.get_outputs()]
        fitting = [
            output
            for output, answer in zip(names, answers, strict=True)
            if _has_row_per_picture(answer, at_once, n_labels)
        ]
        if len(fitting) == 1:
            fixed = at_once if found.at_once or at_once == 1 else None
            return found._replace(output_name=fitting[0], at_once=fixed)
        shapes = [np.shape(answer) if _is_floating(answer) else () for answer in answers]
    listed = one_line(", ".join(str(list(shape)) for shape in shapes))
    raise ModelError(
        f"{name}: its outputs have the shapes [{listed}]; exactly one must hold {n_labels} "
        f"floating-point numbers per picture, as its YAML names {n_labels} labels"
    )


def _is_floating(answer: Any) -> bool:
    return isinstance(answer, np.ndarray) and answer.dtype.kind == "f"


def _has_row_per_picture(answer: Any, n_pictures: int, n_labels: int) -> bool:
    if not _is_floating(answer) or answer.size != n_pictures * n_labels:
        return False
    return n_pictures == 1 or answer.shape[0] == n_pictures


def _run(session: Any, outputs: Any, input_name: str, pictures: np.ndarray, name: str) -> list[Any]:
    try:
        answers: list[Any] = session.run(outputs, {input_name: pictures})
    except Exception as error:  # noqa: BLE001 - onnxruntime has many types of its own
        raise ModelError(f"{name}: cannot be run ({one_line(error)})") from None
    return answers


def _operators(content: bytes, name: str) -> set[str]:
    """Return the operators of a file; refuse a loop, and weights in another file."""
    import onnx  # slow to import, and only the child needs it

    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # noqa: BLE001 - protobuf has types of its own
        raise ModelError(f"{name}: is no ONNX file that can be run ({one_line(error)})") from None
    operators = set()
    for node in _nodes(model):
        operators.add(node.op_type)
        if node.op_type == "Loop":
            raise ModelError(
                f"{name}: holds a Loop ({one_line(node.name) or 'without a name'}), which may run "
                "for ever; export the classifier alone, without steps before and after it"
            )
    return operators


def _nodes(model: Any) -> Iterator[Any]:
    """Yield every node: of the graph, of the functions, and of the graphs inside nodes."""
    waiting = [model.graph, *model.functions]
    defaults = [attribute for function in model.functions for attribute in function.attribute_proto]
    waiting += [graph for attribute in defaults for graph in _graphs(attribute)]
    while waiting:
        for node in waiting.pop().node:
            yield node
            waiting += [graph for attribute in node.attribute for graph in _graphs(attribute)]


def _graphs(attribute: Any) -> list[Any]:
    return [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]
