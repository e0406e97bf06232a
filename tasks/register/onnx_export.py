"""ONNX export of the model, from crop pixels to probabilities, for use outside Python.

Normalization and softmax are in the graph. `model.yaml` beside it describes the file to this
project (docs/models.md), so that the export can be used as `train.weights`; `input.json` describes
it, and the crop step, to others. The file is only stored if its probabilities match the model's.
"""

import json
import os
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import yaml

from tasks.core import safe_yaml
from tasks.core.files import write_text
from tasks.core.models.checkpoint import load_model
from tasks.core.models.onnx_model import DESCRIPTION, NETWORK
from tasks.core.models.spec import CHANNELS, ONNX, ModelSpec
from tasks.core.paths import CROP_SETTINGS

FOLDER = "onnx"
INPUT = "input.json"
TOLERANCE = 1e-4  # largest difference between a probability of the export and of the model
_OPSET = 17
_STREAMS = (1, 2)  # file descriptors of stdout and stderr
_COMPARED = 3  # images for the comparison; more than 1, so that a fixed batch size is noticed


def export_beside(folder: Path) -> str:
    """Write `onnx/` into a model's folder.

    Returns
    -------
    str
        `exported`; `copied` for a model that is an ONNX file; or `none: ` and the reason why there
        is no export. That is not an error: the model can be served without it.
    """
    target = folder / FOLDER
    module, spec = load_model(folder)
    target.mkdir()
    if spec.architecture == ONNX:
        for name in (NETWORK, DESCRIPTION):
            shutil.copyfile(folder / name, target / name)
        _write_input(folder, target, spec)
        return "copied"
    faults = []
    for exporter in _EXPORTERS:
        fault = _try(exporter, module, spec, folder, target)
        if not fault:
            _write_input(folder, target, spec)
            return "exported"
        faults.append(fault)
    shutil.rmtree(target)
    return f"none: {'; '.join(faults)}"


def _try(exporter, module, spec: ModelSpec, folder: Path, target: Path) -> str:  # type: ignore[no-untyped-def]
    """Export with one exporter; return its fault, "" for none."""
    try:
        with _silence():
            exporter(_with_preprocessing(module, spec), spec, target / NETWORK)
        write_text(target / DESCRIPTION, _description(folder, spec))
        difference = _difference(module, spec, target / NETWORK)
    except Exception as error:  # noqa: BLE001 - exporters raise anything for what they lack
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if not difference <= TOLERANCE:
        return f"a probability differs by {difference:.2g}, more than {TOLERANCE:g}"
    return ""


@contextmanager
def _silence() -> Iterator[None]:
    """Suppress the output of exporters, also from C++, which dumps complete graphs on failure."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(number) for number in _STREAMS]
    devnull = os.open(os.devnull, os.O_WRONLY)
    try:
        for number in _STREAMS:
            os.dup2(devnull, number)
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for number, copy in zip(_STREAMS, saved, strict=True):
            os.dup2(copy, number)
            os.close(copy)
        os.close(devnull)


def _by_tracing(complete, spec: ModelSpec, file: Path) -> None:  # type: ignore[no-untyped-def]
    """Export by TorchScript: 0.1 s for `compact`, where torch.export takes 5 s of a core."""
    import torch

    torch.onnx.export(
        complete,
        (_example(spec),),
        str(file),
        input_names=["pixels"],
        output_names=["probabilities"],
        dynamic_axes={"pixels": {0: "pictures"}, "probabilities": {0: "pictures"}},
        opset_version=_OPSET,
        dynamo=False,
    )


def _by_graph(complete, spec: ModelSpec, file: Path) -> None:  # type: ignore[no-untyped-def]
    """Export by torch.export, for networks that tracing cannot export."""
    import torch

    program = torch.onnx.export(
        complete,
        (_example(spec),),
        input_names=["pixels"],
        output_names=["probabilities"],
        dynamic_shapes=({0: torch.export.Dim("pictures")},),
        dynamo=True,
        verbose=False,
    )
    program.save(str(file), external_data=False)


_EXPORTERS = (_by_tracing, _by_graph)  # in order; the first matching export is used


def _example(spec: ModelSpec):  # type: ignore[no-untyped-def]
    import torch

    return torch.zeros((2, CHANNELS[spec.color], spec.input_size_px, spec.input_size_px))


def _with_preprocessing(module, spec: ModelSpec):  # type: ignore[no-untyped-def]
    import torch
    from torch import nn

    class Complete(nn.Module):
        """From pixels 0..255 to probabilities."""

        def __init__(self) -> None:
            super().__init__()
            self.network = module
            shape = (1, -1, 1, 1)
            self.register_buffer("mean", torch.tensor(spec.mean).reshape(shape))
            self.register_buffer("std", torch.tensor(spec.std).reshape(shape))

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return torch.softmax(self.network((pixels / 255.0 - self.mean) / self.std), dim=1)

    return Complete().eval()


def _difference(module, spec: ModelSpec, file: Path) -> float:  # type: ignore[no-untyped-def]
    """Return the largest difference between probabilities of the model and of the file."""
    from tasks.core.models.device import choose_device
    from tasks.core.models.onnx_model import read_onnx
    from tasks.core.models.predictor import EmotionClassifier

    cpu = choose_device("cpu")
    size = (_COMPARED, spec.input_size_px, spec.input_size_px, CHANNELS[spec.color])
    random = np.random.default_rng(0)  # noise on different colors: pure noise gives equal outputs
    colors = random.integers(0, 128, (_COMPARED, 1, 1, size[-1]), dtype=np.uint8)
    pixels = colors + random.integers(0, 128, size, dtype=np.uint8)
    network, read_spec = read_onnx(file, written_here=True)
    original = EmotionClassifier(spec, module, cpu).predict_prepared(pixels)
    exported = EmotionClassifier(read_spec, network, cpu).predict_prepared(pixels)
    return float(np.abs(original - exported).max())


def _description(folder: Path, spec: ModelSpec) -> str:
    margin = json.loads((folder / CROP_SETTINGS).read_text(encoding="utf-8"))["margin"]
    return yaml.safe_dump(
        {
            "labels": list(spec.labels),
            "input_size_px": spec.input_size_px,
            "color": spec.color,
            "layout": "nchw",
            "scaling": "0..255",
            "box_margin": margin,
            "output": "probabilities",
            "source": f"exported from version {spec.version}; {spec.source}",
        },
        sort_keys=False,
        allow_unicode=True,
    )


def _write_input(folder: Path, target: Path, spec: ModelSpec) -> None:
    described = safe_yaml.load((target / DESCRIPTION).read_text(encoding="utf-8"))
    crop = json.loads((folder / CROP_SETTINGS).read_text(encoding="utf-8"))
    content = {
        "model_version": spec.version,
        "file": NETWORK,
        "input": {key: described[key] for key in ("layout", "color", "scaling", "input_size_px")},
        "resize": "bilinear, with antialiasing where the crop is larger",
        "crop": crop,
        "output": {"kind": described["output"], "labels": list(spec.labels)},
    }
    write_text(target / INPUT, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
