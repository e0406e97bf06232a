"""`params.yaml`: one section per stage, each validated by a frozen Pydantic class.

The code has no defaults. All values are in the YAML file, each with a comment, so that the file
shows what a run used. A misspelled key or a missing or invalid value stops the stage; the error
names the key.
"""

import os
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from tasks.core import safe_yaml
from tasks.core.errors import ParamsError
from tasks.core.text import clean

_MAX_FAULTS = 10  # per message
_MAX_CHARACTERS = 300  # of a quotation from the file
_QUOTE = reprlib.Repr()  # bounds the text of values with many aliases
_QUOTE.maxlevel, _QUOTE.maxlist, _QUOTE.maxdict = 2, 4, 4
_QUOTE.maxstring = _QUOTE.maxother = 100

SHARED_KEYS = {"finetune": "train"}  # a section, and the one that its missing keys default to
DEVICE = "device"  # the top-level key that a section's missing `device` defaults to


class Section(BaseModel):
    """A frozen section of params; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


SectionT = TypeVar("SectionT", bound=Section)


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping; raises ParamsError if the file is missing or invalid.

    Texts are cleaned like the groups, columns and data sets in the data that they name (see
    `tasks.core.text`). Paths of existing files stay as they are.
    """
    try:
        content = safe_yaml.load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(
            f"{path}: no such file; `affectgap use PRESET` writes one (see presets/)"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = " ".join(str(error).split())
        raise ParamsError(f"{path}: is not valid YAML ({_brief(line)})") from None
    if not isinstance(content, dict):
        raise ParamsError(f"{path}: must have one section per stage, but is not a mapping")
    cleaned: dict[str, Any] = _cleaned(content, path)
    return cleaned


def parse_section(
    name: str, content: Mapping[str, Any], section: type[SectionT], where: Path
) -> SectionT:
    """Validate one section of a params file (`content`) by its class.

    Raises ParamsError with one line that starts with the file (`where`) and lists the wrong keys.
    """
    if name not in content:
        raise ParamsError(f"{where}: has no section '{name}'; copy it from presets/")
    values = content[name]
    if isinstance(values, dict):
        values = {**_shared_values(name, content, section), **values}
    try:
        return section.model_validate(values)
    except ValidationError as error:
        faults = [_fault(name, fault) for fault in error.errors()[:_MAX_FAULTS]]
        if error.error_count() > _MAX_FAULTS:
            faults.append(f"and {error.error_count() - _MAX_FAULTS} more")
        raise ParamsError(f"{where}: {'; '.join(faults)}") from None


def _shared_values(name: str, content: Mapping[str, Any], section: type[Section]) -> dict[str, Any]:
    """Return the values that a section's missing keys default to."""
    other = content.get(SHARED_KEYS.get(name, ""))
    shared = {DEVICE: content[DEVICE]} if DEVICE in content else {}
    shared |= other if isinstance(other, dict) else {}
    return {key: value for key, value in shared.items() if key in section.model_fields}


def load_section(path: Path, name: str, section: type[SectionT]) -> SectionT:
    """Load one section of a params file; see `parse_section`."""
    return parse_section(name, load_yaml(path), section, path)


def _cleaned(value: Any, where: Path) -> Any:
    """Clean the texts of a YAML value and its keys; paths are relative to the file's folder."""
    if isinstance(value, dict):
        cleaned = {_cleaned(key, where): _cleaned(part, where) for key, part in value.items()}
        if len(cleaned) < len(value):
            keys = ", ".join(map(str, cleaned))
            raise ParamsError(f"{where}: one of the keys {keys} occurs twice, in two spellings")
        return cleaned
    if isinstance(value, list):
        return [_cleaned(part, where) for part in value]
    if not isinstance(value, str) or (text := clean(value)) == value:
        return value
    return value if os.path.exists(where.parent / value) else text


def _fault(name: str, fault: Any) -> str:
    key = _brief(".".join([name, *(str(part) for part in fault["loc"])]))
    if fault["type"] == "extra_forbidden":
        return f"{key} is not a parameter of this stage (misspelled?)"
    if fault["type"] == "missing":
        return f"{key} is missing"
    return f"{key}: {_brief(fault['msg'].lower())}, got {_brief(_QUOTE.repr(fault['input']))}"


def _brief(text: str) -> str:
    return text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]}…"
