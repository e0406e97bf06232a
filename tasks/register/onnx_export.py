"""The model as an ONNX file, for what is not Python: pixels of a crop in, probabilities out.

Normalising and softmax are in the graph. `model.yaml` beside it is what this project reads ONNX
files by (docs/models.md), so the export can itself be given as `train.weights`; `input.json` says
the same to others, together with how the crop is cut. The file is kept only if its answers are
those of the model.
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
from tasks.core.models.onnx_network import DESCRIPTION, NETWORK
from tasks.core.models.spec import CHANNELS, ONNX, ModelSpec
from tasks.core.paths import CROP_SETTINGS

FOLDER = "onnx"
INPUT = "input.json"
TOLERANCE = 1e-4  # largest difference of a probability from the model's own
_OPSET = 17
_STREAMS = (1, 2)  # the process's own output and errors
_TRIED = 3  # pictures by which the two are compared; not 1, so that a fixed batch is noticed


def export_beside(folder: Path) -> str:
    """Write `onnx/` into a model's folder.

    Parameters
    ----------
    folder
        The model's folder.

    Returns
    -------
    str
        `exported`; `copied` for a model that is an ONNX file; or `none: ` and the reason why
        there is no export, which is no error: the model serves without it.
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
    """Export in one way; return what is wrong with it, "" for nothing."""
    try:
        with _silence():
            exporter(_whole(module, spec), spec, target / NETWORK)
        write_text(target / DESCRIPTION, _description(folder, spec))
        difference = _difference(module, spec, target / NETWORK)
    except Exception as error:  # noqa: BLE001 - exporters raise anything for what they lack
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if not difference <= TOLERANCE:
        return f"a probability differs by {difference:.2g}, more than {TOLERANCE:g}"
    return ""


@contextmanager
def _silence() -> Iterator[None]:
    """Keep quiet what exporters write of themselves, and whole graphs from C++ when they fail."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(number) for number in _STREAMS]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for number in _STREAMS:
            os.dup2(nowhere, number)
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for number, copy in zip(_STREAMS, kept, strict=True):
            os.dup2(copy, number)
            os.close(copy)
        os.close(nowhere)


def _by_tracing(whole, spec: ModelSpec, file: Path) -> None:  # type: ignore[no-untyped-def]
    """Export by TorchScript: 0.1 s for `compact`, where the newer way takes 5 s of a core."""
    import torch

    torch.onnx.export(
        whole,
        (_example(spec),),
        str(file),
        input_names=["pixels"],
        output_names=["probabilities"],
        dynamic_axes={"pixels": {0: "pictures"}, "probabilities": {0: "pictures"}},
        opset_version=_OPSET,
        dynamo=False,
    )


def _by_graph(whole, spec: ModelSpec, file: Path) -> None:  # type: ignore[no-untyped-def]
    """Export by torch.export: what tracing cannot do, and when torch has given that up."""
    import torch

    program = torch.onnx.export(
        whole,
        (_example(spec),),
        input_names=["pixels"],
        output_names=["probabilities"],
        dynamic_shapes=({0: torch.export.Dim("pictures")},),
        dynamo=True,
        verbose=False,
    )
    program.save(str(file), external_data=False)


_EXPORTERS = (_by_tracing, _by_graph)  # the first whose file answers as the model does


def _example(spec: ModelSpec):  # type: ignore[no-untyped-def]
    import torch

    return torch.zeros((2, CHANNELS[spec.colour], spec.input_size_px, spec.input_size_px))


def _whole(module, spec: ModelSpec):  # type: ignore[no-untyped-def]
    import torch
    from torch import nn

    class Whole(nn.Module):
        """From pixels 0..255 to probabilities."""

        def __init__(self) -> None:
            super().__init__()
            self.network = module
            shape = (1, -1, 1, 1)
            self.register_buffer("mean", torch.tensor(spec.mean).reshape(shape))
            self.register_buffer("std", torch.tensor(spec.std).reshape(shape))

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return torch.softmax(self.network((pixels / 255.0 - self.mean) / self.std), dim=1)

    return Whole().eval()


def _difference(module, spec: ModelSpec, file: Path) -> float:  # type: ignore[no-untyped-def]
    """Return the largest difference of a probability, as this project reads both."""
    from tasks.core.models.device import choose_device
    from tasks.core.models.onnx_network import read_onnx
    from tasks.core.models.recogniser import Recogniser

    cpu = choose_device("cpu")
    size = (_TRIED, spec.input_size_px, spec.input_size_px, CHANNELS[spec.colour])
    random = np.random.default_rng(0)  # noise on different colours: noise alone looks all the same
    colours = random.integers(0, 128, (_TRIED, 1, 1, size[-1]), dtype=np.uint8)
    pixels = colours + random.integers(0, 128, size, dtype=np.uint8)
    network, read_spec = read_onnx(file, written_here=True)
    here = Recogniser(spec, module, cpu).predict_prepared(pixels)
    there = Recogniser(read_spec, network, cpu).predict_prepared(pixels)
    return float(np.abs(here - there).max())


def _description(folder: Path, spec: ModelSpec) -> str:
    margin = json.loads((folder / CROP_SETTINGS).read_text(encoding="utf-8"))["margin"]
    return yaml.safe_dump(
        {
            "labels": list(spec.labels),
            "input_size_px": spec.input_size_px,
            "colour": spec.colour,
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
        "input": {key: described[key] for key in ("layout", "colour", "scaling", "input_size_px")},
        "resize": "bilinear, with antialiasing where the crop is larger",
        "crop": crop,
        "output": {"kind": described["output"], "labels": list(spec.labels)},
    }
    write_text(target / INPUT, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
