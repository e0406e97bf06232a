"""Replaces the serving code of a registered version, and nothing else."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import yaml
from mlflow import MlflowClient

from tasks.core.files import write_text
from tasks.core.models.checkpoint import load_spec
from tasks.core.paths import Paths
from tasks.core.safe_yaml import load as parse_yaml
from tasks.register.package_model import save_pyfunc, staging
from tasks.register.pyfunc_model import FOLDER
from tasks.register.serve_settings import REVISION, TAG
from tasks.register.version_artifacts import ARTEFACT, fetch_files
from tasks.register.versions import NAME, Version, find, locked_store

RENEWED_AT = "serving_code_renewed_at"  # tag, in UTC
_DESCRIPTION = "MLmodel"


def renew_serving_code(paths: Paths, number: int) -> Version:
    """Replace the serving code of a version by the current code.

    Weights, number, aliases, card and decisions do not change: the gate judged the weights and the
    crop settings, and both are verified against the version's list of files. The new code gets new
    file names, and MLflow's description of the model, which points to it, is replaced last: a
    server that starts meanwhile, or after a killed call, loads either the old or the new code.

    Raises
    ------
    ModelError
        If there is no such version, or the store has lost or damaged its files.
    """
    with locked_store(paths) as client:
        version = find(client, number)
        files = fetch_files(paths, client, number, version.run_id, version.tags)
        with staging(paths) as folder:
            model = folder / "files" / FOLDER
            shutil.copytree(files, model)
            save_pyfunc(model, folder / ARTEFACT, load_spec(model))
            _upload(client, version.run_id, folder / ARTEFACT)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        for name, text in {TAG: str(REVISION), RENEWED_AT: now}.items():
            client.set_model_version_tag(NAME, str(number), name, text)
        return find(client, number)


def _upload(client: MlflowClient, run_id: str, model: Path) -> None:
    """Add the new code to the model in the store, then replace its description."""
    suffix = f"_{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
    description = parse_yaml((model / _DESCRIPTION).read_text(encoding="utf-8"))
    flavor = description["flavors"]["python_function"]
    code, script = flavor["code"], Path(flavor["model_code_path"])
    flavor["code"] = code + suffix
    flavor["model_code_path"] = f"{script.stem}{suffix}.py"
    client.log_artifacts(run_id, str(model / code), f"{ARTEFACT}/{code}{suffix}")
    (model / script.name).rename(model / flavor["model_code_path"])
    write_text(model / _DESCRIPTION, yaml.safe_dump(description))
    requirements = ("requirements.txt", "conda.yaml", "python_env.yaml")
    for name in (flavor["model_code_path"], *requirements, _DESCRIPTION):
        client.log_artifact(run_id, str(model / name), ARTEFACT)
