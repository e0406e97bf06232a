"""Which files of the project a module imports: what a generated stage depends on.

DVC does not follow imports. The stages of dvc.yaml name theirs by hand and a test compares; those
of a study are written by the flow, which reads them from the source here.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

_FIRST_PARTY = ("tasks", "flows")


def imported_files(root: Path, module: str) -> list[str]:
    """List a module's file and every file of the project that it imports, directly or not.

    Parameters
    ----------
    root
        The project's folder.
    module
        A dotted name, such as `tasks.train.study_run`.

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
        waiting += _imports(ast.parse((root / path).read_text(encoding="utf-8")))
    return sorted(found)


def _imports(tree: ast.Module) -> Iterator[str]:
    """Name what a file imports; of `from a import b`, both `a` and `a.b`: either may be a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] in _FIRST_PARTY)
