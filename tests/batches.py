"""Batches as sites send them: drawn children with `labels.csv`, mislabelled ones, broken ones."""

import csv
import shutil
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from tasks.core.labels import EMOTIONS
from tasks.draw.action_units import Style
from tasks.draw.plan import COHORTS, Cohort, plan_images
from tasks.draw.render import RenderJob, draw_images

SHOWN = EMOTIONS[:7]  # what the drawn cohort shows
CLEAR = Style(intensity_mean=0.95, intensity_sd=0.05, unit_mixing=0.0)  # easily told apart
READY = "_READY"
COLUMNS = ("path", "emotion", "subject_id", "age_years", "gender")


def draw_batch(
    folder: Path,
    first: int,
    people: int,
    *,
    cohort: Cohort = "child",
    emotions: Sequence[str] = SHOWN,
    takes: int = 1,
    size_px: int = 256,
    style: Style = CLEAR,
    seed: int = 20261121,
) -> Path:
    """Draw people numbered from `first` (1 is a cohort's first) into a folder with labels.csv.

    The same arguments give the same bytes. No `_READY` is written: see `mark_ready`.
    """
    everyone = plan_images({cohort: first - 1 + people}, emotions, takes)
    skipped = (first - 1) * len(emotions) * takes
    sittings = list(islice(everyone, skipped, None))
    assert sittings[0].number == COHORTS[cohort][1] + first - 1
    drawn = draw_images([RenderJob(sitting, style, seed, size_px) for sitting in sittings])
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for image in drawn:
        name = image.sitting.name
        (folder / name.file_name).write_bytes(image.jpeg)
        rows.append((name.file_name, name.emotion, name.subject, name.age_years, name.gender))
    write_labels(folder, rows)
    return folder


def write_labels(folder: Path, rows: Sequence[Sequence[object]]) -> None:
    with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as handle:
        csv.writer(handle).writerows([COLUMNS, *rows])


def read_labels(folder: Path) -> list[list[str]]:
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as handle:
        return list(csv.reader(handle))[1:]


def swap_labels(folder: Path, one: str = "anger", other: str = "disgust") -> Path:
    """Call every picture of one emotion the other, as a site did that mixed up two folders."""
    swapped = {one: other, other: one}
    rows = [
        [path, swapped.get(emotion, emotion), *rest] for path, emotion, *rest in read_labels(folder)
    ]
    write_labels(folder, rows)
    return folder


def break_files(folder: Path) -> list[str]:
    """Damage three pictures as bad copies do: cut short, overwritten by text, empty."""
    names = sorted(path.name for path in folder.glob("*.jpg"))[:3]
    cut, text, empty = (folder / name for name in names)
    cut.write_bytes(cut.read_bytes()[:3000])
    text.write_bytes(b"<html>502 Bad Gateway</html>\n")
    empty.write_bytes(b"")
    return names


def mark_ready(folder: Path, dataset: str | None = None) -> Path:
    """Write `_READY`, as a sender does last."""
    text = "" if dataset is None else f"dataset: {dataset}\n"
    (folder / READY).write_text(text, encoding="utf-8")
    return folder


def london_parts(source: Path, start: Path, later: Path, held_out: int = 20) -> tuple[int, int]:
    """Copy the London set in two: most people, and a later batch of `held_out` others.

    Both parts hold the whole table of people. Who comes later is spread over both genders by taking
    every fifth person. Returns the number of pictures of each part.
    """
    images = sorted(source.glob("*_front/[0-9]*.jpg"))  # not what macOS hides beside them
    people = sorted({path.name[:3] for path in images})
    late = set(people[::5][:held_out])
    counts = [0, 0]
    for path in images:
        comes_late = path.name[:3] in late
        target = (later if comes_late else start) / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        counts[comes_late] += 1
    for folder in (start, later):
        for table in source.glob("london*.csv"):
            shutil.copyfile(table, folder / table.name)
    return counts[0], counts[1]
