"""`affectgap use`: making a preset the params.yaml without losing what stood there."""

import shutil
from pathlib import Path

from tasks.core.errors import UserError
from tasks.core.files import write_bytes
from tasks.core.params import load_yaml


def use_preset(root: Path, preset: str) -> str:
    """Copy a preset over params.yaml.

    Parameters
    ----------
    root
        The project's folder.
    preset
        A name in `presets/`, or the path of a YAML file.

    Returns
    -------
    str
        What was done; a params.yaml that is no preset is kept beside it first.

    Raises
    ------
    UserError
        For a preset that does not exist; lists those that do.
    """
    chosen = root / "presets" / f"{preset}.yaml"
    if not chosen.is_file():
        chosen = Path(preset)
    if not chosen.is_file():
        names = ", ".join(preset_names(root))
        raise UserError(f"no preset '{preset}'; there are {names}, or give the path of a YAML file")
    load_yaml(chosen)
    params = root / "params.yaml"
    if params.is_file() and _is_own_work(root, params):
        kept = _free_name(root)
        shutil.copy2(params, kept)
        note = f"; your params.yaml is kept as {kept.name}"
    else:
        note = ""
    write_bytes(params, chosen.read_bytes())
    return f"params.yaml is now {chosen.name}{note}"


def preset_names(root: Path) -> list[str]:
    """List the presets that come with the project."""
    return sorted(path.stem for path in (root / "presets").glob("*.yaml"))


def _is_own_work(root: Path, params: Path) -> bool:
    content = params.read_bytes()
    return all(path.read_bytes() != content for path in (root / "presets").glob("*.yaml"))


def _free_name(root: Path) -> Path:
    candidates = (root / f"params.kept-{number}.yaml" for number in range(1, 10_000))
    return next(path for path in candidates if not path.exists())
