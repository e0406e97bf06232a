"""The files of the project that a module imports.

DVC does not follow imports. In dvc.yaml a stage's source files are listed by hand, which a test
checks. For the generated stages of a study, and for the code that a served model contains, they
are determined here.
"""

import ast
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

_FIRST_PARTY = ("tasks", "flows")


def imported_files(root: Path, module: str) -> list[str]:
    """Return the files of a module (a dotted name) and of all that it imports, transitively.

    The paths are relative to the root and sorted. Imports inside functions count; packages, which
    contain no code, do not.
    """
    files: set[str] = set()
    pending = [module]
    while pending:
        name = pending.pop()
        path = Path(*name.split(".")).with_suffix(".py")
        if str(path) in files or not (root / path).is_file():
            continue
        files.add(str(path))
        imported = _imports(root / path)
        pending += [name for name in imported if name.split(".")[0] in _FIRST_PARTY]
    return sorted(files)


def imported_libraries(root: Path, files: Iterable[str]) -> set[str]:
    """Return the import names, such as `PIL`, of the libraries that files of the project import.

    Imports inside functions count; modules of Python's standard library do not.
    """
    imported = {name.split(".")[0] for file in files for name in _imports(root / file)}
    return imported - set(sys.stdlib_module_names) - set(_FIRST_PARTY)


def _imports(path: Path) -> Iterator[str]:
    """Yield the modules that a file imports; for `from a import b` both `a` and `a.b`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
