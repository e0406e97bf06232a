"""ONNX classifiers as inference-only modules, run by onnxruntime.

`model.yaml` beside `model.onnx` describes what the file does not: the order of the labels and how
an image becomes its input. Both are copied unchanged into the model's folder. onnxruntime runs on
the CPU here. An external file is first tried in a child process under limits. Its outputs are
checked then and in every later call.
"""

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import yaml
from pydantic import Field, ValidationError, model_validator
from torch import nn

from tasks.core import safe_yaml
from tasks.core.errors import ModelError
from tasks.core.files import write_bytes
from tasks.core.labels import EMOTION_WORDS, EMOTIONS
from tasks.core.models.label_order import N_PROBES, Output, find_output_fault
from tasks.core.models.onnx_session import (
    MAX_BYTES,
    ExaminedGraph,
    ExpectedGraph,
    examine,
    open_session,
    run_session,
)
from tasks.core.models.spec import (
    CHANNELS,
    ONNX,
    ModelSpec,
    accept_former_spelling,
    validation_faults,
)
from tasks.core.parallel.limited_process import LimitError, call_limited
from tasks.core.params import Section
from tasks.core.text import clean, one_line

NETWORK, DESCRIPTION = "model.onnx", "model.yaml"
_VERSION_DIGITS = 12
_MAX_DESCRIPTION_BYTES = 1 << 20
# Limits of the child process; they grow with the file and its input.
_SECONDS = 60.0
_SECONDS_PER_MB = 0.5
_MEMORY_MB = 2048
_PER_FILE_BYTE, _PER_INPUT_BYTE = 8, 100
_SMALLEST = float(np.finfo(np.float32).tiny)
# (mean, std) in `(pixel / 255 - mean) / std`.
_SCALES = {"0..255": (0.0, 1 / 255), "0..1": (0.0, 1.0), "-1..1": (0.5, 0.5)}


class ChannelScaling(Section):
    """Mean and standard deviation per channel, of pixels from 0 to 1."""

    mean: list[Annotated[float, Field(allow_inf_nan=False)]]
    std: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]]


class OnnxDescription(Section):
    """The YAML beside an ONNX file.

    Attributes
    ----------
    labels
        Emotions in the order of the outputs, in this project's words or those of `EMOTION_WORDS`.
    color
        Channel order: rgb, bgr or gray (one channel).
    layout
        Axis order: nchw or nhwc.
    scaling
        Range of the input: 0..255, 0..1, -1..1, or `{mean, std}` per channel of pixels from 0
        to 1, in the input's channel order.
    box_margin
        Crop margin in training as a share of the face box's side, per side; 0 is a tight box.
    output
        Whether the outputs are probabilities or logits.
    source
        Who trained it on what, its origin and its license; for the report.
    """

    labels: Annotated[list[str], Field(min_length=2)]
    input_size_px: Annotated[int, Field(ge=8, le=2048)]
    color: Literal["rgb", "bgr", "gray"]
    layout: Literal["nchw", "nhwc"]
    scaling: Literal["0..255", "0..1", "-1..1"] | ChannelScaling
    box_margin: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    output: Output
    source: str

    _former_spelling = model_validator(mode="before")(accept_former_spelling)

    @model_validator(mode="after")
    def _fits(self) -> "OnnxDescription":
        unknown = [label for label in self.labels if clean(label).lower() not in EMOTION_WORDS]
        if unknown:
            raise ValueError(
                f"labels: {one_line(', '.join(unknown))} not known; known are {', '.join(EMOTIONS)}"
            )
        if len(set(self.emotions)) < len(self.labels):
            raise ValueError("labels: each emotion once")
        if {len(self.mean), len(self.std)} != {CHANNELS[self.color]}:
            raise ValueError(f"scaling: {CHANNELS[self.color]} values for color {self.color}")
        return self

    @property
    def emotions(self) -> tuple[str, ...]:
        """Return the labels in this project's words."""
        return tuple(EMOTION_WORDS[clean(label).lower()] for label in self.labels)

    @property
    def mean(self) -> tuple[float, ...]:
        """Return one mean per channel, of pixels from 0 to 1."""
        if isinstance(self.scaling, ChannelScaling):
            return tuple(self.scaling.mean)
        return (_SCALES[self.scaling][0],) * CHANNELS[self.color]

    @property
    def std(self) -> tuple[float, ...]:
        """Return one standard deviation per channel, of pixels from 0 to 1."""
        if isinstance(self.scaling, ChannelScaling):
            return tuple(self.scaling.std)
        return (_SCALES[self.scaling][1],) * CHANNELS[self.color]


class OnnxNetwork(nn.Module):
    """ONNX network from `(N, C, S, S)` float32 to `(N, K)` logits.

    If the network returns probabilities, their logarithms are returned, since a softmax turns these
    back into the same probabilities.

    Parameters
    ----------
    file
        The ONNX file; its weights must be embedded.
    written_here
        Whether this project just wrote the file, so that no child process has to try it.

    Raises
    ------
    ModelError
        If the file cannot be read, does not match its description, or gives non-finite outputs.
    """

    def __init__(
        self, file: Path, description: OnnxDescription, written_here: bool = False
    ) -> None:
        super().__init__()
        self.file = file
        self.description = description
        self.content = _read(file)
        self.sha256 = hashlib.sha256(self.content).hexdigest()
        expected = _expected(description)
        if written_here:
            self._found = examine(self.content, str(file), expected)
        else:
            self._found = _examine_in_child(file.resolve(), str(file), self.sha256, expected)
        self._session = open_session(self.content, str(file), torch.get_num_threads())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the network on `(N, C, S, S)` normalized images."""
        axes = (0, 2, 3, 1) if self.description.layout == "nhwc" else (0, 1, 2, 3)
        images = x.detach().cpu().permute(axes).contiguous().numpy()
        rows = run_session(self._session, self._found, images, str(self.file))
        fault = find_output_fault(rows, self.description.output, self._found.sum_tolerance)
        if fault:
            raise ModelError(f"{self.file}: {fault}")
        outputs = torch.from_numpy(rows).to(x.device)
        if self.description.output == "probabilities":
            return outputs.clamp(min=_SMALLEST).log()
        return outputs


def _read(file: Path) -> bytes:
    if not file.is_file():
        raise ModelError(f"{file}: no such ONNX file")
    try:
        if file.stat().st_size > MAX_BYTES:
            raise ModelError(f"{file}: is larger than an ONNX file can be ({MAX_BYTES >> 30} GiB)")
        return file.read_bytes()
    except OSError as error:
        raise ModelError(f"{file}: cannot be read ({one_line(error)})") from None


def _expected(description: OnnxDescription) -> ExpectedGraph:
    pairs = list(zip(description.mean, description.std, strict=True))
    return ExpectedGraph(
        side_px=description.input_size_px,
        n_labels=len(description.labels),
        layout=description.layout,
        output=description.output,
        scale=tuple(1 / (255 * std) for _, std in pairs),
        offset=tuple(-mean / std for mean, std in pairs),
    )


@lru_cache(maxsize=16)
def _examine_in_child(path: Path, name: str, sha256: str, expected: ExpectedGraph) -> ExaminedGraph:
    """Examine a file in a child process, once per content and description."""
    file_mb = path.stat().st_size / (1 << 20)
    input_mb = N_PROBES * 4 * float(np.prod(expected.input_shape())) / (1 << 20)
    seconds = _SECONDS + _SECONDS_PER_MB * file_mb
    memory_mb = _MEMORY_MB + _PER_FILE_BYTE * file_mb + _PER_INPUT_BYTE * input_mb
    try:
        fields = call_limited(
            "tasks.core.models.onnx_session:examine_file",
            *(str(path), name, sha256, list(expected)),
            seconds=seconds,
            memory_mb=int(memory_mb),
        )
    except LimitError as error:
        raise ModelError(
            f"{name}: was tried on {N_PROBES} pictures in a process of its own, and {error}; "
            "export the classifier again, without steps before and after it"
        ) from None
    return ExaminedGraph(*fields)


def read_onnx(file: Path, written_here: bool = False) -> tuple[OnnxNetwork, ModelSpec]:
    """Read `<name>.onnx` and `<name>.yaml` beside it; see `OnnxNetwork`.

    The spec's version is the first 12 hex digits of the file's sha256. Raises ModelError if a file
    is missing or invalid, or if the two do not match.
    """
    if not file.is_file():
        raise ModelError(f"{file}: no such ONNX file")
    description = read_description(file)
    network = OnnxNetwork(file, description, written_here)
    spec = ModelSpec(
        architecture=ONNX,
        labels=description.emotions,
        input_size_px=description.input_size_px,
        color=description.color,
        mean=description.mean,
        std=description.std,
        version=network.sha256[:_VERSION_DIGITS],
        source=description.source,
    )
    return network, spec


def save_onnx(network: OnnxNetwork, folder: Path) -> None:
    """Copy the ONNX file and its YAML into a model's folder, byte for byte."""
    description = network.file.with_suffix(".yaml").read_bytes()
    write_bytes(folder / NETWORK, network.content)
    write_bytes(folder / DESCRIPTION, description)


def read_description(file: Path) -> OnnxDescription:
    """Read the YAML beside a weights file; raise ModelError with one line."""
    path = file.with_suffix(".yaml")
    if not path.is_file():
        raise ModelError(
            f"{path}: missing; it says what the {file.suffix} file beside it expects "
            "(docs/models.md)"
        )
    try:
        if path.stat().st_size > _MAX_DESCRIPTION_BYTES:
            raise yaml.YAMLError(f"has more than {_MAX_DESCRIPTION_BYTES:,} bytes")
        content = safe_yaml.load(path.read_text(encoding="utf-8"))
        return OnnxDescription.model_validate(content)
    except ValidationError as error:
        raise ModelError(f"{path}: {one_line(validation_faults(error), 600)}") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ModelError(f"{path}: is not valid YAML ({one_line(error)})") from None
