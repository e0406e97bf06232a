"""Pages out of templates: a name that the values lack is an error, not an empty place."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tasks.core.text import printable


def render(templates: Path, template: str, values: Mapping[str, Any]) -> str:
    """Fill a template by its name, such as `report.html.j2`.

    All text is escaped, and control characters in it are shown as what they are.

    Parameters
    ----------
    templates
        The folder of the template and of those that it includes.
    template
        The file's name.
    values
        What it shows; raises jinja2.UndefinedError for a name that is not among them.
    """
    environment = Environment(
        loader=FileSystemLoader(templates),
        autoescape=True,
        finalize=_without_controls,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(values) + "\n"


def _without_controls(value: Any) -> Any:
    """Make text printable, line by line; what a macro returns was made so already."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return "\n".join(printable(line) for line in value.split("\n"))
