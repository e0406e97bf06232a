"""YAML from outside, under limits: no bomb of aliases or merge keys, no key twice.

PyYAML's safe loader makes no objects, but 600 bytes of nested merge keys keep it busy for hours,
an alias bomb prints as gigabytes, and of a doubled key it keeps the second without a word.
"""

from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

MAX_CHARACTERS = 1 << 20
MAX_NODES = 100_000  # with every alias written out
MAX_DEPTH = 64  # of brackets in brackets; the time for each character grows with it
_MAX_DIGITS = 100  # to read a number of base 60, such as 1:30:00, takes quadratic time
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_MERGE = "tag:yaml.org,2002:merge"


def load(text: str, max_characters: int = MAX_CHARACTERS) -> Any:
    """Parse one YAML document.

    Parameters
    ----------
    text
        The document.
    max_characters
        A longer text is refused unread.

    Returns
    -------
    object
        As `yaml.safe_load` does.

    Raises
    ------
    yaml.YAMLError
        For what is no YAML, and for what is too long, too deep, too large once its aliases are
        written out, refers to itself, or has a key twice (with the line of the second).
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
    except (ValueError, OverflowError) as error:  # a date or a number that is none
        raise yaml.YAMLError(str(error)) from None
    finally:
        loader.dispose()


def _count(node: Node, known: dict[int, int]) -> int:
    """Count the nodes below one with its aliases written out; refuse too many."""
    size = known.get(id(node))
    if size == 0:
        raise yaml.YAMLError(f"refers to itself (line {node.start_mark.line + 1})")
    if size is not None:
        return size
    if node.tag in _NUMBERS and len(node.value) > _MAX_DIGITS:
        raise yaml.YAMLError(
            f"line {node.start_mark.line + 1}: a number of {len(node.value):,} characters"
        )
    known[id(node)] = 0  # at work
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
    """The safe loader, which refuses a key that occurs twice."""

    def fetch_flow_collection_start(self, token: Any) -> None:
        """Refuse brackets that are nested too deeply, before they are scanned further."""
        if self.flow_level >= MAX_DEPTH:
            raise yaml.YAMLError("is nested too deeply")
        super().fetch_flow_collection_start(token)

    def flatten_mapping(self, node: MappingNode) -> None:
        """Check the keys once, as they are written: merged ones join them here."""
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
                    f"key '{key.value}' stands twice (lines {lines[name]} and {line})"
                )
            lines[name] = line
