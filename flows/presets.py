"""`affectgap use`: makes a preset the params.yaml without losing what was there.

presets/default.yaml holds every key with its comment; a preset holds what differs. An indented
mapping merges with the default's; a mapping in braces, a list or a value replaces it. A comment
beside a key replaces the default's comment.
"""

import io
import shutil
from pathlib import Path
from typing import Any

from ruamel.yaml.comments import CommentedMap

from tasks.core.commented_yaml import round_trip
from tasks.core.errors import UserError
from tasks.core.files import write_text
from tasks.core.params import SHARED_KEYS, load_yaml

DEFAULT = "default"


def use_preset(root: Path, preset: str) -> str:
    """Write the complete params.yaml of a preset and return one line about it.

    `preset` is a name in `presets/` or the path of a YAML file, which may be an overlay or
    complete. A params.yaml that is no preset is saved beside it first.

    Raises
    ------
    UserError
        For a preset that does not exist; lists those that do. Also for keys that are not in
        presets/default.yaml.
    """
    chosen = root / "presets" / f"{preset}.yaml"
    if not chosen.is_file():
        chosen = Path(preset)
    if not chosen.is_file():
        names = ", ".join(preset_names(root))
        raise UserError(f"no preset '{preset}'; there are {names}, or give the path of a YAML file")
    text = preset_text(root, chosen)
    params = root / "params.yaml"
    note = ""
    if params.is_file() and _was_edited(root, params):
        saved = _free_name(root)
        shutil.copy2(params, saved)
        note = f"; your params.yaml is saved as {saved.name}"
    write_text(params, text)
    return f"params.yaml is now {chosen.name}{note}"


def preset_names(root: Path) -> list[str]:
    """List the presets that come with the project."""
    return sorted(path.stem for path in (root / "presets").glob("*.yaml") if path.stem != DEFAULT)


def preset_text(root: Path, preset: Path) -> str:
    """Return a complete params.yaml, with comments: presets/default.yaml under an overlay."""
    default = root / "presets" / f"{DEFAULT}.yaml"
    text = preset.read_text(encoding="utf-8", errors="replace")
    if _header(text).strip() != text.strip():  # a preset may differ in nothing
        load_yaml(preset)  # one line about bad YAML
    base, overlay = (
        round_trip().load(default.read_text(encoding="utf-8")),
        round_trip().load(text),
    )
    if overlay and set(base) <= set(overlay):
        return text  # complete, such as the one that `affectgap study` writes
    header = _header(text) or _header(default.read_text(encoding="utf-8"))
    if overlay:
        _merge(base, overlay, "", preset.name, base)
    out = io.StringIO()
    base.ca.comment = None
    round_trip().dump(base, out)
    return f"{header}\n{out.getvalue()}"


def _header(text: str) -> str:
    """Return the comment lines that a file opens with."""
    lines = text.splitlines()
    n = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return "".join(f"{line}\n" for line in lines[:n])


def _merge(
    base: CommentedMap, overlay: CommentedMap, above: str, file: str, root: CommentedMap
) -> None:
    for key, value in overlay.items():
        shared = base if not above else root.get(SHARED_KEYS.get(above[:-1], ""), {})
        if key not in base and key not in shared:
            raise UserError(f"{file}: '{above}{key}' is not a key of presets/{DEFAULT}.yaml")
        indented = isinstance(value, CommentedMap) and value and not value.fa.flow_style()
        if indented and isinstance(base[key], CommentedMap):
            _merge(base[key], value, f"{above}{key}.", file, root)
            continue
        trailing = _comment_end(base, key)
        base[key] = value
        if key in overlay.ca.items:
            base.ca.items[key] = overlay.ca.items[key]
        _end_comment(base, key, trailing)


def _comment_end(mapping: CommentedMap, key: Any) -> str:
    """Return the blank lines and further comments that follow a key's own comment."""
    token = _token(mapping, key)
    return token.value.partition("\n")[2] if token else ""


def _end_comment(mapping: CommentedMap, key: Any, trailing: str) -> None:
    token = _token(mapping, key)
    if token:
        token.value = token.value.partition("\n")[0] + "\n" + trailing


def _token(mapping: CommentedMap, key: Any) -> Any:
    return (mapping.ca.items.get(key) or [None] * 3)[2]


def _was_edited(root: Path, params: Path) -> bool:
    content = params.read_text(encoding="utf-8", errors="replace")
    presets = [*preset_names(root), DEFAULT]
    return all(preset_text(root, root / "presets" / f"{p}.yaml") != content for p in presets)


def _free_name(root: Path) -> Path:
    candidates = (root / f"params.saved-{number}.yaml" for number in range(1, 10_000))
    return next(path for path in candidates if not path.exists())
