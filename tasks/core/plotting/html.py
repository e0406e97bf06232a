"""HTML pages from Jinja templates; an undefined variable is an error."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tasks.core.text import printable


def render(templates: Path, template: str, values: Mapping[str, Any]) -> str:
    """Render a template, such as `report.html.j2` in the folder `templates`.

    HTML is escaped, and control characters are shown as escapes. Raises jinja2.UndefinedError for a
    variable without a value.
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
    """Make text printable, line by line, except for the results of macros, which already are."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return "\n".join(printable(line) for line in value.split("\n"))
