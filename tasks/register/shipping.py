"""From a model's folder to a registered version: an MLflow model that stands alone.

Weights as safetensors, the code that serving needs, exact requirements, a signature, and ONNX
beside them. The version is made last, with all its tags at once: a killed call leaves artefacts of
a run, and no half version.
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

from tasks.core.errors import ModelError
from tasks.core.files import sha256_of, write_text
from tasks.core.imported_files import imported_files, imported_libraries
from tasks.core.labels import credit_line
from tasks.core.models.checkpoint import SEEN, load_model, load_seen, load_spec
from tasks.core.models.spec import ONNX, ModelSpec
from tasks.core.params import load_yaml
from tasks.core.paths import CROP_SETTINGS, Paths
from tasks.core.skipped import read_skipped
from tasks.core.tables import read_table
from tasks.core.tracking import Run, open_run
from tasks.register.kept_files import ARTEFACT, FILES, GROUPS, keep_files, list_files
from tasks.register.onnx_export import export_beside
from tasks.register.own_groups import worst_group_tags
from tasks.register.served import COLUMN, FOLDER, SERVING, output_columns
from tasks.register.serving_defects import REVISION, TAG

_ROOT = Path(__file__).parents[2]  # of the code, also where the project's data is elsewhere
_ENTRIES = ("tasks.register.served", "tasks.crop.all_faces")  # what the shipped file imports
_SCRIPT = Path(__file__).with_name("shipped_model.py.txt")  # as text: it works when imported
_OPTIONAL = ("onnx", "onnxruntime", "timm", "torchvision")  # needed by some networks only
_DISTRIBUTIONS = {"PIL": "pillow", "dlib": "dlib-bin", "yaml": "pyyaml"}  # others: as imported
_KEY_DIGITS = 12


def key_of(folder: Path) -> str:
    """Name what makes a model the one it is: weights, pictures seen, way of cutting.

    Raises
    ------
    ModelError
        One line, where there is no model, or something of it is missing.
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
    """Register a model's folder as a new version and return its number.

    Parameters
    ----------
    paths
        The project's paths.
    client
        MLflow's client.
    name
        Of the registered model, which is there.
    folder
        The model's folder.
    key
        As `key_of` names it; becomes a tag.
    """
    with open_run(paths, "register", {"key": key}, kind="stage") as run, staging(paths) as place:
        files, about = _assemble(paths, folder, place / "kept" / FOLDER)
        save_pyfunc(place / "kept" / FOLDER, place / ARTEFACT, load_spec(folder))
        run.log_artifact(place / ARTEFACT)
        return _create(client, name, run, {"key": key, FILES: files, TAG: str(REVISION), **about})


def _assemble(paths: Paths, folder: Path, kept: Path) -> tuple[str, dict[str, str]]:
    """Fill the folder that is kept; return the digest of its list, and tags that describe it."""
    keep_files(paths, folder, kept)
    max_pixels = load_yaml(paths.params)["ingest"]["max_pixels"]
    write_text(kept / SERVING, json.dumps({"max_pixels": max_pixels}) + "\n")
    onnx = export_beside(kept)
    return list_files(kept), {**_about(paths, folder), "onnx": onnx}


def _about(paths: Paths, folder: Path) -> dict[str, str]:
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
    place = client.get_run(run.run_id).info.artifact_uri
    made = client.create_model_version(name, f"{place}/{ARTEFACT}", run_id=run.run_id, tags=tags)
    return int(made.version)


@contextmanager
def staging(paths: Paths) -> Iterator[Path]:
    """Lend a folder of the project in which a model is put together; it is removed afterwards."""
    place = paths.work("registry", f".shipping-{os.getpid()}")
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def save_pyfunc(kept: Path, target: Path, spec: ModelSpec) -> None:
    """Write MLflow's model: the kept folder, the code, the script, requirements, signature."""
    from mlflow.pyfunc import save_model

    code, libraries = _copy_code(kept.parent / "code", needed_by(kept, spec))
    script = kept.parent / _SCRIPT.stem
    shutil.copyfile(_SCRIPT, script)
    with _without_advice():
        save_model(
            target,
            python_model=str(script),
            artifacts={FOLDER: str(kept)},
            code_paths=[str(code)],
            pip_requirements=libraries,
            signature=_signature(spec),
        )


@contextmanager
def _without_advice() -> Iterator[None]:
    """Keep MLflow from advising, and from taking the lock file of whoever calls for the model's."""
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
    """Copy what serving imports, and say which libraries, in which versions, that needs."""
    files = sorted({file for entry in _ENTRIES for file in imported_files(_ROOT, entry)})
    folders = {parent for file in files for parent in list(Path(file).parents)[:-1]}
    for file in [*files, *(f"{parent}/__init__.py" for parent in folders)]:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_ROOT / file, folder / file)
    needed = imported_libraries(_ROOT, files) - set(_OPTIONAL) | optional
    names = sorted(_DISTRIBUTIONS.get(library, library) for library in needed)
    return folder / "tasks", [f"{name}=={importlib.metadata.version(name)}" for name in names]


def needed_by(folder: Path, spec: ModelSpec) -> set[str]:
    """Name those of the libraries for some networks only that a model needs."""
    if spec.architecture == ONNX:
        return {"onnx", "onnxruntime"}
    module, _ = load_model(folder)
    return {type(part).__module__.split(".")[0] for part in module.modules()} & set(_OPTIONAL)


def _signature(spec: ModelSpec):  # type: ignore[no-untyped-def]
    from mlflow.models import ModelSignature
    from mlflow.types import DataType, Schema
    from mlflow.types.schema import AnyType, Array, ColSpec

    text, number, whole = DataType.string, DataType.double, DataType.long
    kinds = {"image": text, "face": whole, "emotion": text, "model_version": text, "note": text}
    kinds |= {"box_xyxy_px": Array(number)}
    always = ("image", "model_version", "note")
    outputs = [ColSpec(whole, "row")] + [
        ColSpec(kinds.get(name, number), name, required=name in always)
        for name in output_columns(spec.labels)
    ]
    return ModelSignature(Schema([ColSpec(AnyType(), COLUMN)]), Schema(outputs))
