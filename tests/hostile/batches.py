"""Hostile batches in the inbox: folders and archives of damaged files, with damaged `_READY`."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

from hostile import images, tables
from hostile.archives import hostile_archive
from hostile.campaign import require_line
from hostile.markers import hostile_mark
from inbox_world import new_project

from flows.intake import recovery
from flows.intake.intake import intake_inbox
from tasks.check import batch_checks
from tasks.core.paths import Paths

_NAMES = (
    "batch",
    "batch 2",
    "e\u0301",
    "한글",
    "[red]x",
    "x\x1b]0;t\x07",
    "a\nb",
    "-n",
    "$x$",
)
_FILES = (
    *("a.png", "deep/b.jpg", "한글.png", ".hidden", "Thumbs.db", "__MACOSX/._a", "c\n.png"),
    *("d$.gif", "e.heic", "f.txt"),
)


def check_batch(random: Random, folder: Path) -> str:
    """Take in a hostile batch: every file is in the data or in quarantine, and said in a line."""
    paths = _project(folder)
    packed = random.random() < 0.4
    given = _give(random, paths, packed)
    lines: list[str] = []
    taken = intake_inbox(paths, lines.append)
    for line in lines:
        require_line(line, 6000)
    (one,) = taken
    assert one.state in ("accepted", "quarantined"), f"stays in the inbox: {one}"
    assert not [path for path in paths.inbox.iterdir() if not path.name.startswith(".")]
    raw, away = _digests(paths.raw), _digests(paths.quarantine)
    if one.state == "quarantined":
        assert given <= away and not raw, "a file is not in the quarantine"
        reason = next(paths.quarantine.glob("*/REASON.md")).read_text(encoding="utf-8")
        for line in reason.splitlines():
            require_line(line or "-", 6000)
    elif not packed:
        assert given <= raw, "a file is not in the data"
    assert intake_inbox(paths, lines.append) == []
    return one.state


def _project(folder: Path) -> Paths:
    """Make a project without DVC and Great Expectations, which have tests of their own."""
    recovery.add_to_dvc = lambda paths, dataset: None
    batch_checks.batch_faults = _faults
    batch_checks.pipeline_faults = lambda there, rows, params: []
    return new_project(folder / "project")


def _faults(rows, left_out, repeated, limits, params) -> list[str]:
    return ["no picture"] if rows.empty else []


def _give(random: Random, paths: Paths, packed: bool) -> Counter[str]:
    """Put a batch into the inbox; return the digests of what was given."""
    name = random.choice(_NAMES)
    if packed:
        suffix, content = hostile_archive(random, _members(random))
        place = paths.inbox / f"{name}{suffix}"
        place.write_bytes(content)
        mark = paths.inbox / f"{name}{suffix}._READY"
    else:
        for path, content in _members(random):
            place = paths.inbox / name / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        mark = paths.inbox / name / "_READY"
    mark.write_bytes(hostile_mark(random) if random.random() < 0.3 else b"")
    return _digests(paths.inbox)


def _members(random: Random) -> list[tuple[str, bytes]]:
    sound = images.corpus()["png-rgb"]
    chosen = random.sample(_FILES, random.randint(0, 3))
    members = [(name, images.hostile_image(random)) for name in chosen]
    members.append(("happiness/sound.png", sound))
    if random.random() < 0.5:
        header, rows = ["path", "emotion"], [["sound.png", "joy"]]
        members.append(("labels.csv", tables.hostile_table(random, header, rows)[0]))
    return members


def _digests(folder: Path) -> Counter[str]:
    return Counter(hashlib.sha256(path.read_bytes()).hexdigest() for path in _files(folder))


def _files(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from (path for path in folder.rglob("*") if path.is_file())
