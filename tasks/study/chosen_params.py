"""The params.yaml of the winner: the same text with another section `train`, comments kept."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from tasks.core import safe_yaml

_SECTION = "train"
_LINE = re.compile(r"(?P<indent> *)(?P<key>[A-Za-z_]+):(?P<space> *)(?P<rest>.*)$")
_COMMENT = re.compile(r"(?P<value>.*?)(?P<comment>\s+#.*)?$")


def chosen_text(text: str, recipe: Mapping[str, Any]) -> str:
    """Return a params file whose section `train` says `recipe`.

    Parameters
    ----------
    text
        The params file of the study.
    recipe
        The whole section.

    Returns
    -------
    str
        The text with changed values in their lines. Where a value does not stand in one line, the
        whole file is written anew, without comments.
    """
    wanted = {**safe_yaml.load(text), _SECTION: _plain(recipe)}
    changed = "\n".join(_lines(text, _flat(_plain(recipe)))) + "\n"
    try:
        if safe_yaml.load(changed) == wanted:
            return changed
    except yaml.YAMLError:
        pass
    return yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True)


def _lines(text: str, values: Mapping[tuple[str, ...], Any]) -> Iterator[str]:
    """Put values where their keys stand in the section."""
    inside, above = False, ""
    for line in text.splitlines():
        found = _LINE.match(line)
        if found and not found["indent"]:
            inside = found["key"] == _SECTION
        elif found and inside:
            deep = len(found["indent"]) > 2
            place = (above, found["key"]) if deep else (found["key"],)
            above = above if deep else found["key"]
            if place in values:
                line = _changed(line, found, values[place])
        yield line


def _changed(line: str, found: re.Match[str], value: Any) -> str:
    """Put a value into its line, unless it says so already."""
    parts = _COMMENT.match(found["rest"])
    assert parts is not None  # any text matches
    if yaml.safe_load(parts["value"]) == value:
        return line
    written = _written(value)
    before = f"{found['indent']}{found['key']}:{found['space']}"
    comment = (parts["comment"] or "").lstrip()
    kept = len(line) - len(comment)
    return f"{before}{written}".ljust(kept - 2) + f"  {comment}" if comment else before + written


def _written(value: Any) -> str:
    """Write a value on one line of YAML; 1e-05 needs a dot to be a number there."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000)
    return text.removesuffix("...\n").strip()


def _flat(recipe: Mapping[str, Any]) -> dict[tuple[str, ...], Any]:
    flat: dict[tuple[str, ...], Any] = {}
    for key, value in recipe.items():
        nested = isinstance(value, dict) and key != "group"
        flat |= {(key, k): v for k, v in value.items()} if nested else {(key,): value}
    return flat


def _plain(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy that shares nothing, so that YAML writes no anchors."""
    return {
        key: dict(value) if isinstance(value, Mapping) else value for key, value in recipe.items()
    }
