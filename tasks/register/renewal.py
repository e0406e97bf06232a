"""Replaces the code that a registered version is served with, and nothing else of it."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import yaml
from mlflow import MlflowClient

from tasks.core.files import write_text
from tasks.core.models.checkpoint import load_spec
from tasks.core.paths import Paths
from tasks.core.safe_yaml import load as parse_yaml
from tasks.register.kept_files import ARTEFACT, fetch_files
from tasks.register.served import FOLDER
from tasks.register.serving_defects import REVISION, TAG
from tasks.register.shipping import save_pyfunc, staging
from tasks.register.versions import NAME, Version, alone_with_store, find

RENEWED_AT = "serving_code_renewed_at"  # tag, in UTC
_DESCRIPTION = "MLmodel"


def renew_serving_code(paths: Paths, number: int) -> Version:
    """Replace the code that a version is served with by today's.

    Weights, number, aliases, card and decisions stay as they are: what the gate judged is the
    weights and the way of cutting faces, and both are verified against the version's own list of
    files. The new code is stored under names of its own, and MLflow's description of the
    model, which points to it, is replaced last: a server that starts meanwhile, or after a call
    that was killed, loads the one or the other.

    Parameters
    ----------
    paths
        The project's paths.
    number
        Which version.

    Raises
    ------
    ModelError
        One line: there is no such version, or the store has lost or damaged its files.
    """
    with alone_with_store(paths) as client:
        version = find(client, number)
        files = fetch_files(paths, client, number, version.run_id, version.tags)
        with staging(paths) as place:
            model = place / "kept" / FOLDER
            shutil.copytree(files, model)
            save_pyfunc(model, place / ARTEFACT, load_spec(model))
            _upload(client, version.run_id, place / ARTEFACT)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        for name, text in {TAG: str(REVISION), RENEWED_AT: now}.items():
            client.set_model_version_tag(NAME, str(number), name, text)
        return find(client, number)


def _upload(client: MlflowClient, run_id: str, model: Path) -> None:
    """Add a saved model's code to the one in the store, then let its description point there."""
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
