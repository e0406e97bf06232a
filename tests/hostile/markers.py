"""Hostile `_READY` markers: YAML bombs, doubled keys, deep nesting, and bytes that are no text."""

from pathlib import Path
from random import Random

from hostile.campaign import mutate, require_line

from flows.intake.entries import BatchRejectedError, dataset_of, find_batches
from flows.intake.settings import Params

_MERGE_BOMB = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 12)
)
_ALIAS_BOMB = "a0: &a0 [x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
_MARKS = (
    *("", "dataset: arrived\n", "dataset: arrived\n", "dataset: other\n", "dataset: drawn"),
    *("dataset: ../raw\n", "dataset: [arrived]\n", "dataset: 3\n", "dataset: null", "{}", "[]"),
    *("dataset: arrived\ndataset: drawn\n", "dataset: &a [*a]\n", "dataset: !!python/none x"),
    *("dataset: 2026-99-99\n", "dataset: !!int x", "? [a, b]\n: c", "<<: 1", "[" * 3000),
    *("- " * 2000, _MERGE_BOMB, _ALIAS_BOMB, "x" * 5000, "dataset: arrived\0", "%YAML 9"),
    *("\ufeffdataset: arrived", "dataset:\tarrived", "Dataset: arrived", "dataset: arrived # x"),
)


def check_marker(random: Random, folder: Path) -> str:
    """Read a hostile `_READY`: the name of a data set, or a refusal of one line."""
    (folder / "batch").mkdir()
    (folder / "batch/_READY").write_bytes(hostile_mark(random))
    (found,) = find_batches(folder)
    try:
        name = dataset_of(found, Params.model_construct(dataset="arrived"))
    except BatchRejectedError as error:
        for reason in error.reasons:
            require_line(reason)
        return "refused"
    require_line(name)
    return "accepted"


def hostile_mark(random: Random) -> bytes:
    """Build one."""
    content = random.choice(_MARKS).encode()
    return mutate(content, random, 2) if random.random() < 0.4 else content
