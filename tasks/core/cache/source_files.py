"""Which files of the project a module imports: what a generated stage depends on, what is shipped.

DVC does not follow imports. The stages of dvc.yaml name theirs by hand and a test compares; those
of a study are written by the flow, which reads them from the source here. So does the model as it
is shipped, which holds the code that it needs.
"""

import ast
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

_FIRST_PARTY = ("tasks", "flows")


def imported_files(root: Path, module: str) -> list[str]:
    """List a module's file and every file of the project that it imports, directly or not.

    Parameters
    ----------
    root
        The project's folder.
    module
        A dotted name, such as `tasks.train.trial`.

    Returns
    -------
    list of str
        Paths below the root, sorted; imports inside functions count, packages (which hold no
        code) do not.
    """
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = Path(*name.split(".")).with_suffix(".py")
        if str(path) in found or not (root / path).is_file():
            continue
        found.add(str(path))
        imported = _imports(root / path)
        waiting += [name for name in imported if name.split(".")[0] in _FIRST_PARTY]
    return sorted(found)


def imported_libraries(root: Path, files: Iterable[str]) -> set[str]:
    """Name the libraries, as they are imported, that files of the project need.

    Parameters
    ----------
    root
        The project's folder.
    files
        Paths below it, as `imported_files` returns them.

    Returns
    -------
    set of str
        Such as `numpy` and `PIL`; imports inside functions count, Python's own modules do not.
    """
    imported = {name.split(".")[0] for file in files for name in _imports(root / file)}
    return imported - set(sys.stdlib_module_names) - set(_FIRST_PARTY)


def _imports(path: Path) -> Iterator[str]:
    """Name what a file imports; of `from a import b`, both `a` and `a.b`: either may be a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
