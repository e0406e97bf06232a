"""`params.yaml`: one section a stage, each loaded into a frozen class that knows every key.

No defaults in code: the values live in YAML, each with a comment, so that what a run used is what
the file says. A misspelt, missing or impossible value stops the stage and names its key.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from tasks.core.errors import ParamsError


class Section(BaseModel):
    """A frozen section of params; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


SectionT = TypeVar("SectionT", bound=Section)


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping; raises ParamsError with one line where it is missing or torn."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(
            f"{path}: no such file; `affectgap use PRESET` writes one (see presets/)"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = " ".join(str(error).split())
        raise ParamsError(f"{path}: is not valid YAML ({line})") from None
    if not isinstance(content, dict):
        raise ParamsError(f"{path}: must hold one section a stage, but holds no mapping")
    return content


def parse_section(
    name: str, content: Mapping[str, Any], section: type[SectionT], where: Path
) -> SectionT:
    """Check one section against its class.

    Parameters
    ----------
    name
        The section's name in the file.
    content
        The whole file as a mapping.
    section
        The frozen class that lists the section's keys.
    where
        The file, for the message.

    Raises
    ------
    ParamsError
        One line that names every wrong key and what is wrong with it.
    """
    if name not in content:
        raise ParamsError(f"{where}: has no section '{name}'; copy it from presets/")
    try:
        return section.model_validate(content[name])
    except ValidationError as error:
        faults = "; ".join(_fault(name, fault) for fault in error.errors())
        raise ParamsError(f"{where}: {faults}") from None


def load_section(path: Path, name: str, section: type[SectionT]) -> SectionT:
    """Load one section of a params file; see `parse_section`."""
    return parse_section(name, load_yaml(path), section, path)


def _fault(name: str, fault: Any) -> str:
    key = ".".join([name, *(str(part) for part in fault["loc"])])
    if fault["type"] == "extra_forbidden":
        return f"{key} is no parameter of this stage (misspelt?)"
    if fault["type"] == "missing":
        return f"{key} is missing"
    return f"{key}: {fault['msg'].lower()}, got {fault['input']!r}"
