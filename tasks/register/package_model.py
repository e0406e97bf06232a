"""Packages a model's folder as a self-contained MLflow model and registers it as a version.

It has weights as safetensors, the code for serving, exact requirements, a signature, and ONNX. The
version is created last, with all its tags at once: a killed call leaves artifacts of a run, and no
incomplete version.
"""

import hashlib
import importlib.metadata
import json
import logging
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlflow import MlflowClient

from tasks.core.cache.source_files import imported_files, imported_libraries
from tasks.core.errors import ModelError
from tasks.core.files import sha256_of, write_text
from tasks.core.labels import credit_line
from tasks.core.models.checkpoint import SEEN, load_model, load_seen, load_spec, read_skipped
from tasks.core.models.spec import ONNX, ModelSpec
from tasks.core.params import load_yaml
from tasks.core.paths import CROP_SETTINGS, Paths
from tasks.core.tables import read_table
from tasks.core.tracking.mlflow_runs import Run, open_run
from tasks.register.card_tables import worst_group_tags
from tasks.register.onnx_export import export_beside
from tasks.register.pyfunc_model import COLUMN, FOLDER, SERVING, output_columns
from tasks.register.serve_settings import REVISION, TAG
from tasks.register.version_artifacts import ARTEFACT, FILES, GROUPS, keep_files, list_files

_ROOT = Path(__file__).parents[2]  # of the code; the project's data may be elsewhere
_ENTRIES = ("tasks.register.pyfunc_model", "tasks.crop.crop_all_faces")  # imported by _SCRIPT
_SCRIPT = Path(__file__).with_name("shipped_model.py.txt")  # no .py, since importing it runs it
_OPTIONAL = ("onnx", "onnxruntime", "timm", "torchvision")  # needed by some networks only
_NOT_IN_SERVING = {"distributed"}  # an optional extra, imported only for a Dask cluster
_DISTRIBUTIONS = {  # where the name differs from the import
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "dlib": "dlib-bin",
    "yaml": "pyyaml",
}
_KEY_DIGITS = 12


def key_of(folder: Path) -> str:
    """Return a digest of a model's identity: weights, training images and crop settings.

    Raises
    ------
    ModelError
        If there is no model, or a file of it is missing.
    """
    skipped = read_skipped(folder)
    if skipped:
        raise ModelError(f"{folder}: there is no such model, since {skipped.reason}")
    spec = load_spec(folder)
    for name in (SEEN, CROP_SETTINGS):
        if not (folder / name).is_file():
            raise ModelError(f"{folder / name}: missing; train the model again")
    parts = (spec.version, sha256_of(folder / SEEN), sha256_of(folder / CROP_SETTINGS))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:_KEY_DIGITS]


def ship(paths: Paths, client: MlflowClient, name: str, folder: Path, key: str) -> int:
    """Register a model's folder as a new version of `name` and return its number.

    `key` is the result of `key_of` and becomes a tag.
    """
    with open_run(paths, "register", {"key": key}, kind="stage") as run, staging(paths) as work:
        files, tags = _assemble(paths, folder, work / "files" / FOLDER)
        save_pyfunc(work / "files" / FOLDER, work / ARTEFACT, load_spec(folder))
        run.log_artifact(work / ARTEFACT)
        return _create(client, name, run, {"key": key, FILES: files, TAG: str(REVISION), **tags})


def _assemble(paths: Paths, folder: Path, target: Path) -> tuple[str, dict[str, str]]:
    """Fill the folder to store; return the digest of its file list, and descriptive tags."""
    keep_files(paths, folder, target)
    max_pixels = load_yaml(paths.params)["ingest"]["max_pixels"]
    write_text(target / SERVING, json.dumps({"max_pixels": max_pixels}) + "\n")
    onnx = export_beside(target)
    return list_files(target), {**_description_tags(paths, folder), "onnx": onnx}


def _description_tags(paths: Paths, folder: Path) -> dict[str, str]:
    spec, seen = load_spec(folder), load_seen(folder)
    split = read_table(paths.split, ["dataset", "batch"])
    batches = sorted({batch for batch in split["batch"] if batch})
    return {
        "digest": spec.version,
        "architecture": spec.architecture,
        "labels": ", ".join(spec.labels),
        "source": spec.source[:400],
        "subjects_seen": str(seen["subject_id"].nunique()),
        "pictures_seen": str(seen["image_id"].nunique()),
        "datasets": ", ".join(sorted(set(split["dataset"]))),
        "batches": ", ".join(batches) or "none",
        "notice": credit_line(split["dataset"]),
        **worst_group_tags(paths.tables / GROUPS),
    }


def _create(client: MlflowClient, name: str, run: Run, tags: dict[str, str]) -> int:
    source = f"{client.get_run(run.run_id).info.artifact_uri}/{ARTEFACT}"
    return int(client.create_model_version(name, source, run_id=run.run_id, tags=tags).version)


@contextmanager
def staging(paths: Paths) -> Iterator[Path]:
    """Yield an empty staging folder; it is removed afterwards."""
    folder = paths.work("registry", f".shipping-{os.getpid()}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def save_pyfunc(files: Path, target: Path, spec: ModelSpec) -> None:
    """Write the MLflow model around the folder `files`: code, script, requirements, signature."""
    from mlflow.pyfunc import save_model

    code, libraries = _copy_code(files.parent / "code", needed_by(files, spec))
    script = files.parent / _SCRIPT.stem
    shutil.copyfile(_SCRIPT, script)
    with _quiet_mlflow():
        save_model(
            target,
            python_model=str(script),
            artifacts={FOLDER: str(files)},
            code_paths=[str(code)],
            pip_requirements=libraries,
            signature=_signature(spec),
        )


@contextmanager
def _quiet_mlflow() -> Iterator[None]:
    """Silence MLflow, and keep it from using the caller's uv.lock for the model's requirements."""
    logger = logging.getLogger("mlflow")
    level, names = logger.level, ("MLFLOW_UV_AUTO_DETECT", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "false"))
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _copy_code(folder: Path, optional: set[str]) -> tuple[Path, list[str]]:
    """Copy the code that serving imports; return its folder and the pinned requirements."""
    files = sorted({file for entry in _ENTRIES for file in imported_files(_ROOT, entry)})
    folders = {parent for file in files for parent in list(Path(file).parents)[:-1]}
    for file in [*files, *(f"{parent}/__init__.py" for parent in folders)]:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_ROOT / file, folder / file)
    needed = imported_libraries(_ROOT, files) - set(_OPTIONAL) - _NOT_IN_SERVING | optional
    names = sorted(_DISTRIBUTIONS.get(library, library) for library in needed)
    return folder / "tasks", [f"{name}=={importlib.metadata.version(name)}" for name in names]


def needed_by(folder: Path, spec: ModelSpec) -> set[str]:
    """Return the optional libraries that a model needs."""
    if spec.architecture == ONNX:
        return {"onnx", "onnxruntime"}
    module, _ = load_model(folder)
    return {type(part).__module__.split(".")[0] for part in module.modules()} & set(_OPTIONAL)


def _signature(spec: ModelSpec):  # type: ignore[no-untyped-def]
    from mlflow.models import ModelSignature
    from mlflow.types import DataType, Schema
    from mlflow.types.schema import AnyType, Array, ColSpec

    text, number, integer = DataType.string, DataType.double, DataType.long
    types = {"image": text, "face": integer, "emotion": text, "model_version": text, "note": text}
    types |= {"box_xyxy_px": Array(number)}
    always = ("image", "model_version", "note")
    outputs = [ColSpec(integer, "row")] + [
        ColSpec(types.get(name, number), name, required=name in always)
        for name in output_columns(spec.labels)
    ]
    return ModelSignature(Schema([ColSpec(AnyType(), COLUMN)]), Schema(outputs))
