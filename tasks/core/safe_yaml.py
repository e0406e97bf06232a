"""Loading of untrusted YAML with limits on size and depth, and without duplicate keys.

PyYAML's safe loader creates no objects, but 600 bytes of nested merge keys take it hours, an alias
bomb prints as gigabytes, and of duplicate keys it silently uses the second.
"""

from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

MAX_CHARACTERS = 1 << 20
MAX_NODES = 100_000  # with aliases expanded
MAX_DEPTH = 64  # of nested brackets; the time per character grows with it
_MAX_DIGITS = 100  # parsing a number of base 60, such as 1:30:00, takes quadratic time
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_MERGE = "tag:yaml.org,2002:merge"


def load(text: str, max_characters: int = MAX_CHARACTERS) -> Any:
    """Parse one YAML document like `yaml.safe_load`.

    Raises
    ------
    yaml.YAMLError
        The text is invalid, too long, too deep or too large with aliases expanded, it refers to
        itself, or a key occurs twice.
    """
    if len(text) > max_characters:
        raise yaml.YAMLError(f"has {len(text):,} characters; {max_characters:,} are allowed")
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {})
        return loader.construct_document(node)
    except RecursionError:
        raise yaml.YAMLError("is nested too deeply") from None
    except (ValueError, OverflowError) as error:  # an invalid date or number
        raise yaml.YAMLError(str(error)) from None
    finally:
        loader.dispose()


def _count(node: Node, known: dict[int, int]) -> int:
    """Return the number of nodes below one with aliases expanded; raises YAMLError for too many."""
    size = known.get(id(node))
    if size == 0:
        raise yaml.YAMLError(f"refers to itself (line {node.start_mark.line + 1})")
    if size is not None:
        return size
    if node.tag in _NUMBERS and len(node.value) > _MAX_DIGITS:
        raise yaml.YAMLError(
            f"line {node.start_mark.line + 1}: a number of {len(node.value):,} characters"
        )
    known[id(node)] = 0  # being counted
    total = 1
    for child in _children(node):
        total += _count(child, known)
        if total > MAX_NODES:
            raise yaml.YAMLError(
                f"is larger than {MAX_NODES:,} values once its aliases are written out"
            )
    known[id(node)] = total
    return total


def _children(node: Node) -> list[Node]:
    if isinstance(node, MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, SequenceNode) else []


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with limits; rejects duplicate keys."""

    def fetch_flow_collection_start(self, token: Any) -> None:
        """Reject too deeply nested brackets before the scanner continues."""
        if self.flow_level >= MAX_DEPTH:
            raise yaml.YAMLError("is nested too deeply")
        super().fetch_flow_collection_start(token)

    def flatten_mapping(self, node: MappingNode) -> None:
        """Check for duplicate keys before merge keys are expanded."""
        if id(node) not in self._checked:
            self._checked.add(id(node))
            _assert_keys_once(node)
        super().flatten_mapping(node)

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._checked: set[int] = set()


def _assert_keys_once(node: MappingNode) -> None:
    lines: dict[tuple[str, str], int] = {}
    for key, _ in node.value:
        if isinstance(key, ScalarNode) and key.tag != _MERGE:
            name, line = (key.tag, key.value), key.start_mark.line + 1
            if name in lines:
                raise yaml.YAMLError(
                    f"key '{key.value}' occurs twice (lines {lines[name]} and {line})"
                )
            lines[name] = line
