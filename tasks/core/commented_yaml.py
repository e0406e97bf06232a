"""YAML of the project's own, read and written with its comments: presets and params.yaml.

Apart from `safe_yaml`, so that a served model does not need ruamel.yaml.
"""

from ruamel.yaml import YAML


def round_trip() -> YAML:
    """Return a format that reads and writes YAML with its comments and layout."""
    form = YAML()
    form.width = 10_000
    form.preserve_quotes = True
    form.brace_single_entry_mapping_in_flow_sequence = True
    form.representer.add_representer(
        type(None), lambda dumper, _: dumper.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    return form
