"""Claim: the crop stage costs little more than the work that every cropping method needs.

Run with `AFFECTGAP_ASSETS=<folder> python benchmarks/crop.py`. Prints two ratios, measured in
alternating rounds of one run on the London photographs (1350 × 1350 px):

- images per second of the complete stage (with tables, shards, rejects and contact sheet) over
those of bare decoding + HOG on a downscaled copy + resampling, on all cores; the target is 0.9.

- images per second of the stage over those of the plain method, which searches the full image in
one process; the target is 5.

Both sides of the first ratio start a separate pool in each round. The stage's cache is removed
before each round, and an impossible ratio ends the benchmark.
"""

import os
import sys
import tempfile
from functools import lru_cache, partial
from pathlib import Path

import dlib
import numpy as np
import pandas as pd
from PIL import Image
from rounds import (
    Rates,
    rate,
    ratio,
    read_files,
    remove_results,
    require_possible,
    take_turns,
)

from tasks.core.parallel.execution import map_in_order, process_pool
from tasks.core.params import load_section
from tasks.core.paths import Paths
from tasks.core.tables import MANIFEST_SCHEMA, write_table
from tasks.crop.crop_faces import CHUNK
from tasks.crop.stage import Params, run

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 3
REPEATS = 2  # each photograph this often a round, so that starting weighs less
PLAIN_IMAGES = 12


@lru_cache(maxsize=1)
def detector() -> dlib.fhog_object_detector:
    """Return dlib's frontal face detector, one a process."""
    return dlib.get_frontal_face_detector()


def bare_chunk(chunk: list[Path], params: Params) -> list[bool]:
    """Decode, search a downscaled gray copy and resample; keep nothing."""
    for path in chunk:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        side_px = params.detector_side_px
        copy = image.convert("L").resize((side_px, side_px), Image.Resampling.BILINEAR)
        box = detector().run(np.asarray(copy), 0, params.min_score)[0][0]
        resample(image, box, image.width / side_px, params)
    return [True] * len(chunk)


def plain_image(path: Path, params: Params) -> None:
    """Search the full image, in color, as the detector's own example does."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    resample(image, detector()(np.asarray(image), 0)[0], 1.0, params)


def resample(image: Image.Image, box: dlib.rectangle, scale: float, params: Params) -> np.ndarray:
    """Cut a square with the params' margin (inside the image) and resample it."""
    half = box.width() * scale * (0.5 + params.margin)
    x, y = (max(half, at * scale) for at in (box.dcenter().x, box.dcenter().y))
    square = (x - half, y - half, min(x + half, image.width), min(y + half, image.height))
    size = (params.size_px, params.size_px)
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR, box=square))


def bare(files: list[Path], params: Params) -> None:
    """Do the bare work on all cores."""
    with process_pool(params.workers) as pool:
        work = partial(bare_chunk, params=params)
        for _ in map_in_order(work, files, pool, CHUNK, params.workers):
            pass


def add_checked_table(paths: Paths, folder: Path, files: list[Path]) -> None:
    """List the photographs as the check stage would, each one REPEATS times."""
    paths.raw.mkdir(parents=True)
    (paths.raw / "london").symlink_to(folder)
    names = [str(Path("london") / path.relative_to(folder)) for path in files]
    table = pd.DataFrame({"path": names}).assign(
        image_id=[f"{index:016x}" for index in range(len(files))],
        dataset="london",
        emotion="neutral",
        age_band="adult",
        gender="unknown",
        width_px=1350,
        height_px=1350,
        warnings="",
    )
    columns = [*MANIFEST_SCHEMA.names, "warnings"]
    write_table(table.reindex(columns=columns), paths.checked, MANIFEST_SCHEMA)


def measure(
    files: list[Path], plain_files: list[Path], params: Params, paths: Paths, rounds: int
) -> list[Rates]:
    """Measure rounds of the stage, of the bare work and of the plain method."""
    read_files(files)
    sides = {
        "stage": lambda: run(params, paths),
        "bare": lambda: bare(files, params),
        "plain": lambda: [plain_image(path, params) for path in plain_files],
    }
    items = {"stage": len(files), "bare": len(files), "plain": len(plain_files)}
    return take_turns(sides, items, rounds, lambda: remove_results(paths))


def main() -> int:
    """Measure, print and return 0 where both targets are met."""
    assets = os.environ.get("AFFECTGAP_ASSETS")
    if not assets:
        print("crop: skipped, AFFECTGAP_ASSETS names no folder with the London photographs")
        return 0
    os.environ["AFFECTGAP_PROGRESS"] = "off"
    folder = (Path(assets) / "london").resolve()
    files = sorted(folder.glob("*/[0-9]*.jpg")) * REPEATS
    params = load_section(ROOT / "params.yaml", "crop", Params)
    plain_files = files[:: len(files) // PLAIN_IMAGES][:PLAIN_IMAGES]
    with tempfile.TemporaryDirectory() as root:
        paths = Paths(Path(root))
        add_checked_table(paths, folder, files)
        measured = measure(files, plain_files, params, paths, ROUNDS)
    ours, floor, plain = (rate(measured, side) for side in ("stage", "bare", "plain"))
    print(f"crop: {ours:.1f} pictures/s; bare {floor:.1f}; plain, one process {plain:.1f}")
    over_bare = require_possible("crop", ratio(measured, "stage", "bare"))
    over_plain = ratio(measured, "stage", "plain")
    print(f"crop: ratio over bare {over_bare:.2f} (target at least 0.9)")
    print(f"crop: ratio over plain {over_plain:.1f} (target at least 5)")
    return 0 if over_bare >= 0.9 and over_plain >= 5 else 1


if __name__ == "__main__":
    sys.exit(main())
