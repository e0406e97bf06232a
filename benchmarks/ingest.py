"""Claim: the ingest stage costs little more than hashing and decoding every image once.

Prints images per second of the complete stage (listing, labels, hashes, decoding, duplicates,
tables) and of bare sha256 and decoding on all cores, and their ratio, measured in alternating
rounds of one run. The target is 0.9 for the London photographs and 0.6 for the drawn images, which
are decoded in a few milliseconds. Both sides start a separate pool in each round, without a cache.

[AFFECTGAP_ASSETS=<folder>] .venv/bin/python benchmarks/ingest.py [PICTURES]

PICTURES (default 2,000) is the number of copies of drawn images; each has a different comment in
the file, so that none is a duplicate.
"""

import hashlib
import os
import sys
import tempfile
from functools import partial
from pathlib import Path

from rounds import (
    Rates,
    rate,
    ratio,
    read_files,
    remove_results,
    require_possible,
    take_turns,
)

from tasks.core.imaging.decode import decode_image
from tasks.core.parallel.execution import map_in_order, process_pool
from tasks.core.params import load_section
from tasks.core.paths import Paths
from tasks.ingest.stage import Params, Source, run

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 4
DATASET = "many"
DRAWN, DRAWN_PEOPLE = 2_000, 10
LONDON_COPIES = 2  # of each photograph, so that starting weighs less
TARGETS = {"london": 0.9, "drawn": 0.6}
CHUNK = 16


def bare_chunk(files: list[Path], max_pixels: int) -> list[bool]:
    """Read, hash and decode; keep nothing."""
    for path in files:
        content = path.read_bytes()
        hashlib.sha256(content).hexdigest()
        decode_image(content, max_pixels)
    return [True] * len(files)


def bare(files: list[Path], params: Params) -> None:
    """Do the bare work on all cores."""
    with process_pool(params.workers) as pool:
        work = partial(bare_chunk, max_pixels=params.max_pixels)
        for _ in map_in_order(work, files, pool, CHUNK, params.workers):
            pass


def add_copies(folder: Path, originals: list[tuple[str, bytes]], copies: int) -> list[Path]:
    """Write distinct copies of JPEG files, in a folder for each emotion."""
    files = []
    for number in range(copies):
        emotion, content = originals[number % len(originals)]
        note = f"{number:08d}".encode()
        comment = b"\xff\xfe" + (len(note) + 2).to_bytes(2, "big") + note  # a JPEG COM segment
        path = folder / emotion / f"{number:08d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content[:2] + comment + content[2:])
        files.append(path)
    return files


def drawn_images() -> list[tuple[str, bytes]]:
    """Draw a few adults with every emotion: emotion and JPEG."""
    from tasks.draw import stage as draw
    from tasks.draw.plan import plan_images
    from tasks.draw.render import RenderJob, draw_images

    params = load_section(ROOT / "params.yaml", "draw", draw.Params)
    style = params.expression["adult"]
    sittings = plan_images({"adult": DRAWN_PEOPLE}, params.emotions, 1)
    orders = [RenderJob(sitting, style, params.seed, params.size_px) for sitting in sittings]
    return [(drawn.sitting.name.emotion, drawn.jpeg) for drawn in draw_images(orders)]


def london_images(assets: Path) -> list[tuple[str, bytes]]:
    """Return the London photographs: emotion and JPEG."""
    emotions = {"neutral_front": "neutral", "smiling_front": "happiness"}
    return [
        (emotion, path.read_bytes())
        for folder, emotion in emotions.items()
        for path in sorted((assets / "london" / folder).glob("[0-9]*.jpg"))
    ]


def measure(files: list[Path], params: Params, paths: Paths, rounds: int) -> list[Rates]:
    """Measure rounds of the stage and of the bare work."""
    read_files(files)
    sides = {"stage": lambda: run(params, paths), "bare": lambda: bare(files, params)}
    return take_turns(
        sides, dict.fromkeys(sides, len(files)), rounds, lambda: remove_results(paths)
    )


def ingest_params() -> Params:
    """Return the section of params.yaml, for one data set of folders named by emotion."""
    params = load_section(ROOT / "params.yaml", "ingest", Params)
    datasets = {DATASET: Source(adapter="folder")}
    return params.model_copy(update={"datasets": datasets, "optional_datasets": []})


def compare(name: str, originals: list[tuple[str, bytes]], copies: int) -> bool:
    """Measure and print; return whether the target is met."""
    params = ingest_params()
    with tempfile.TemporaryDirectory(prefix="affectgap-ingest-") as root:
        paths = Paths(Path(root))
        files = add_copies(paths.raw / DATASET, originals, copies)
        measured = measure(files, params, paths, ROUNDS)
    over = require_possible(f"ingest, {name}", ratio(measured, "stage", "bare"))
    ours, floor = rate(measured, "stage"), rate(measured, "bare")
    print(
        f"ingest, {name}: {ours:.1f} pictures/s; bare {floor:.1f}; ratio {over:.2f} "
        f"(target at least {TARGETS[name]})",
        flush=True,
    )
    return over >= TARGETS[name]


def main() -> int:
    """Measure, print and return 0 where every target is met."""
    os.environ["AFFECTGAP_PROGRESS"] = "off"
    met = [compare("drawn", drawn_images(), int(sys.argv[1]) if sys.argv[1:] else DRAWN)]
    if assets := os.environ.get("AFFECTGAP_ASSETS"):
        photographs = london_images(Path(assets))
        met.append(compare("london", photographs, LONDON_COPIES * len(photographs)))
    else:
        print("ingest, london: skipped, AFFECTGAP_ASSETS names no folder with the photographs")
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
