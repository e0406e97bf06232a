"""Presets and params.yaml, read and written with their comments.

Separate from `safe_yaml`, so that a served model does not need ruamel.yaml.
"""

from ruamel.yaml import YAML


def round_trip() -> YAML:
    """Return a parser and emitter that preserves comments and layout."""
    yaml = YAML()
    yaml.width = 10_000
    yaml.preserve_quotes = True
    yaml.brace_single_entry_mapping_in_flow_sequence = True
    yaml.representer.add_representer(
        type(None), lambda dumper, _: dumper.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    return yaml
