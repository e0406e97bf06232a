"""Examination of external ONNX files in a child process before this process opens them.

A graph is a program. Files with a `Loop`, which may never end, are rejected. So are files that
refer to weights in other files, which onnxruntime would read from any path. Anything else a graph
may do (fill the memory, crash the parser, expand without end) only ends the child. This module does
not import torch, since the child imports it.
"""

import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tasks.core.errors import ModelError
from tasks.core.models.label_order import (
    QUANTIZED_SUM_TOLERANCE,
    SUM_TOLERANCE,
    Output,
    find_probe_fault,
    probe_pixels,
)
from tasks.core.text import one_line

MAX_BYTES = 2 << 30  # what a protobuf message can hold
_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_QUANTIZED = ("DequantizeLinear", "QLinearSoftmax")
# External weights are read only below this path, which cannot exist.
_NO_FOLDER = "/dev/null/no-weights-outside"


class ExpectedGraph(NamedTuple):
    """Input and output as the description declares them.

    `scale` and `offset` convert a pixel from 0 to 255 to the input, one value per channel.
    """

    side_px: int
    n_labels: int
    layout: str
    output: Output
    scale: tuple[float, ...]
    offset: tuple[float, ...]

    def input_shape(self) -> list[int]:
        """Return the shape of one image in the input's axis order."""
        sides = [self.side_px, self.side_px]
        return [*sides, len(self.scale)] if self.layout == "nhwc" else [len(self.scale), *sides]


class ExaminedGraph(NamedTuple):
    """Result of examining a file.

    Attributes
    ----------
    output_name
        The output with one number per label.
    half
        Whether the input is float16.
    at_once
        Fixed batch size of the file; None: any.
    sum_tolerance
        Allowed difference of a row of probabilities from a sum of 1.
    """

    input_name: str
    output_name: str
    half: bool
    at_once: int | None
    sum_tolerance: float


def open_session(content: bytes, name: str, n_threads: int) -> Any:
    """Open an ONNX file in this process; raise ModelError that begins with `name`.

    Only for files that `examine` accepted or that this project wrote itself.
    """
    import onnxruntime  # slow to import and rarely needed

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # it also raises what it would log
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", _NO_FOLDER
    )
    try:
        # From memory, since a model with external weights could not be copied as one file.
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - onnxruntime has many types of its own
        raise ModelError(
            f"{name}: is not a valid ONNX file; its weights must be inside ({one_line(error)})"
        ) from None


def run_session(session: Any, found: ExaminedGraph, images: np.ndarray, name: str) -> np.ndarray:
    """Return the unchecked outputs `(N, K)` float32 for images in the file's axis order.

    `name` is the file, for messages. Raises ModelError if onnxruntime fails.
    """
    images = images.astype(np.float16 if found.half else np.float32, copy=False)
    at_once = found.at_once or max(1, len(images))
    parts = []
    for start in range(0, len(images), at_once):
        part = images[start : start + at_once]
        padded = np.concatenate([part, np.repeat(part[:1], at_once - len(part), 0)])
        (outputs,) = _run(session, [found.output_name], found.input_name, padded, name)
        if np.size(outputs) % at_once:
            raise ModelError(f"{name}: gives another number of outputs from call to call")
        parts.append(np.reshape(outputs, (at_once, -1))[: len(part)])
    return np.concatenate(parts).astype(np.float32)


def examine_file(path: str, name: str, sha256: str, expected: list[Any]) -> list[Any]:
    """Examine a file; `call_limited` runs this in a child process.

    `name` is the file as the user named it, `sha256` that of the content the caller will open.
    `expected` and the result are the fields of `Expected` and `Found`, as JSON holds them. Raises
    ModelError; see `examine`.
    """
    content = Path(path).read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ModelError(f"{name}: was changed while it was read")
    return list(examine(content, name, ExpectedGraph(*expected)))


def examine(
    content: bytes, name: str, expected: ExpectedGraph, session: Any = None
) -> ExaminedGraph:
    """Determine an ONNX file's input and output from its graph and the probe images.

    `session` is the opened file; None: it is opened here. Raises ModelError if the graph is
    rejected, if input or output do not match the description, or if the outputs for the probe
    images are invalid.
    """
    operators = _operators(content, name)
    session = session or open_session(content, name, 1)
    tolerance = QUANTIZED_SUM_TOLERANCE if operators & {*_QUANTIZED} else SUM_TOLERANCE
    model_input = _checked_input(session, name, expected)
    fixed = model_input.shape[0] if isinstance(model_input.shape[0], int) else None
    pixels = probe_pixels(expected.side_px, len(expected.scale))
    scale, offset = (np.asarray(v, dtype=np.float32) for v in (expected.scale, expected.offset))
    normalized = pixels * scale + offset
    images = normalized if expected.layout == "nhwc" else normalized.transpose(0, 3, 1, 2)
    found = ExaminedGraph(
        model_input.name, "", model_input.type == "tensor(float16)", fixed, tolerance
    )
    found = _with_output(session, found, images, name, expected.n_labels)
    rows = run_session(session, found, images, name)
    fault = find_probe_fault(rows, expected.output, tolerance)
    if fault:
        raise ModelError(f"{name}: {fault}")
    return found


def _checked_input(session: Any, name: str, expected: ExpectedGraph) -> Any:
    """Return the single input if it matches the description."""
    inputs = session.get_inputs()
    expected_shape = expected.input_shape()
    model_input = inputs[0] if len(inputs) == 1 else None
    if model_input is not None and model_input.type in _TYPES and len(model_input.shape) == 4:
        axes = zip(model_input.shape[1:], expected_shape, strict=True)
        batch = model_input.shape[0]
        if all(not isinstance(has, int) or has == want for has, want in axes) and (
            not isinstance(batch, int) or 0 < batch * math.prod(expected_shape) < MAX_BYTES
        ):
            return model_input
    actual = "; ".join(f"{entry.name} {entry.type} {entry.shape}" for entry in inputs[:4])
    raise ModelError(
        f"{name}: takes {one_line(actual) or 'nothing'}, but its YAML says one input of "
        f"{expected_shape} "
        f"({expected.layout}, floating point)"
    )


def _with_output(
    session: Any, found: ExaminedGraph, images: np.ndarray, name: str, n_labels: int
) -> ExaminedGraph:
    """Find the output with one number per label, and the batch size.

    A graph that declares any batch size but only works with one image is called with one at a time.
    """
    shapes: list[tuple[int, ...]] = []
    for at_once in [found.at_once] if found.at_once else [n_labels + 1, 1]:
        batch = np.resize(images, (at_once, *images.shape[1:]))
        batch = batch.astype(np.float16 if found.half else np.float32)
        try:
            outputs = _run(session, None, found.input_name, batch, name)
        except ModelError:
            if at_once == 1 or found.at_once:
                raise
            continue
        names = [output.name for output in session.get_outputs()]
        candidates = [
            output
            for output, output_array in zip(names, outputs, strict=True)
            if _has_row_per_image(output_array, at_once, n_labels)
        ]
        if len(candidates) == 1:
            fixed = at_once if found.at_once or at_once == 1 else None
            return found._replace(output_name=candidates[0], at_once=fixed)
        shapes = [
            np.shape(output_array) if _is_floating(output_array) else () for output_array in outputs
        ]
    listed = one_line(", ".join(str(list(shape)) for shape in shapes))
    raise ModelError(
        f"{name}: its outputs have the shapes [{listed}]; exactly one must hold {n_labels} "
        f"floating-point numbers per picture, as its YAML names {n_labels} labels"
    )


def _is_floating(array: Any) -> bool:
    return isinstance(array, np.ndarray) and array.dtype.kind == "f"


def _has_row_per_image(array: Any, n_images: int, n_labels: int) -> bool:
    if not _is_floating(array) or array.size != n_images * n_labels:
        return False
    return n_images == 1 or array.shape[0] == n_images


def _run(session: Any, outputs: Any, input_name: str, images: np.ndarray, name: str) -> list[Any]:
    try:
        results: list[Any] = session.run(outputs, {input_name: images})
    except Exception as error:  # noqa: BLE001 - onnxruntime has many types of its own
        raise ModelError(f"{name}: cannot be run ({one_line(error)})") from None
    return results


def _operators(content: bytes, name: str) -> set[str]:
    """Return the operators of a file; raise on a loop."""
    import onnx  # slow to import, and only the child needs it

    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # noqa: BLE001 - protobuf has types of its own
        raise ModelError(f"{name}: is not a valid ONNX file ({one_line(error)})") from None
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
    """Yield the nodes of the graph, of its functions, and of nested graphs."""
    pending = [model.graph, *model.functions]
    defaults = [attribute for function in model.functions for attribute in function.attribute_proto]
    pending += [graph for attribute in defaults for graph in _graphs(attribute)]
    while pending:
        for node in pending.pop().node:
            yield node
            pending += [graph for attribute in node.attribute for graph in _graphs(attribute)]


def _graphs(attribute: Any) -> list[Any]:
    return [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]
