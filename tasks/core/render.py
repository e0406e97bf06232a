"""Pages out of templates: a name that the values lack is an error, not an empty place."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def render(templates: Path, template: str, values: Mapping[str, Any]) -> str:
    """Fill a template by its name, such as `report.html.j2`, with all text escaped.

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
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(values) + "\n"
