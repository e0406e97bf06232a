"""Claim: the crop stage costs little more than the work that no way of cropping can do without.

Run with `AFFECTGAP_ASSETS=<folder> python benchmarks/crop.py`. Prints two ratios, measured in one
run on the London photographs (1350 × 1350 px), rounds of one taking turns with rounds of another:

- pictures a second of the whole stage (tables, shards, rejects and contact sheet included) over
  those of bare decoding + HOG on a downscaled copy + resampling, on all cores; the target is 0.9.
- pictures a second of the stage over those of the plain way, which searches the full picture in
  one process; the target is 5.

Both sides of the first ratio start a pool of their own in each round, and neither result is kept.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from statistics import median

import dlib
import numpy as np
import pandas as pd
from PIL import Image

from tasks.core.execution import map_in_order, process_pool
from tasks.core.params import load_section
from tasks.core.paths import Paths
from tasks.core.tables import MANIFEST_SCHEMA, write_table
from tasks.crop.cut_faces import CHUNK
from tasks.crop.stage import Params, run

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 3
REPEATS = 2  # each photograph this often a round, so that starting weighs less
PLAIN_PICTURES = 12


@lru_cache(maxsize=1)
def detector() -> dlib.fhog_object_detector:
    """Return dlib's frontal face detector, one a process."""
    return dlib.get_frontal_face_detector()


def bare_chunk(chunk: list[Path], params: Params) -> list[bool]:
    """Decode, search a downscaled grey copy and resample; keep nothing."""
    for path in chunk:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        side_px = params.detect_side_px
        copy = image.convert("L").resize((side_px, side_px), Image.Resampling.BILINEAR)
        box = detector().run(np.asarray(copy), 0, params.min_score)[0][0]
        resample(image, box, image.width / side_px, params)
    return [True] * len(chunk)


def plain_picture(path: Path, params: Params) -> None:
    """Search the full picture, in colour, as the detector's own example does."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    resample(image, detector()(np.asarray(image), 0)[0], 1.0, params)


def resample(image: Image.Image, box: dlib.rectangle, scale: float, params: Params) -> np.ndarray:
    """Cut a square with the params' margin (inside the picture) and resample it."""
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


def per_second(work: Callable[[], object], pictures: int) -> float:
    """Return how many pictures a second some work did."""
    started = time.perf_counter()
    work()
    return pictures / (time.perf_counter() - started)


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
    plain_files = files[:: len(files) // PLAIN_PICTURES][:PLAIN_PICTURES]
    rates: list[tuple[float, float, float]] = []
    with tempfile.TemporaryDirectory() as root:
        paths = Paths(Path(root))
        add_checked_table(paths, folder, files)
        for _ in range(ROUNDS):
            ours = per_second(lambda: run(params, paths), len(files))
            floor = per_second(lambda: bare(files, params), len(files))
            plain = per_second(
                lambda: [plain_picture(path, params) for path in plain_files], len(plain_files)
            )
            rates.append((ours, floor, plain))
    ours, floor, plain = (median(column) for column in zip(*rates, strict=True))
    over_bare = median(ours / floor for ours, floor, _ in rates)
    over_plain = median(ours / plain for ours, _, plain in rates)
    print(f"crop: {ours:.1f} pictures/s; bare {floor:.1f}; plain, one process {plain:.1f}")
    print(f"crop: ratio over bare {over_bare:.2f} (target at least 0.9)")
    print(f"crop: ratio over plain {over_plain:.1f} (target at least 5)")
    return 0 if over_bare >= 0.9 and over_plain >= 5 else 1


if __name__ == "__main__":
    sys.exit(main())
