"""Peak memory of ingest, check, crop, evaluate and train by number of images.

Each stage works on 1,000 and on 20,000 small images (drawn faces; copies differ by a comment in the
file, so that none is a duplicate). Prints the peak of the largest process of each and their ratio.
Only the table grows, by a few kB per row.

Then `train` reads 1,000 and 100,000 crops of 64 px, decoding included, for an epoch of a small
network. Prints resident memory with and without mapped files, and the difference between the sizes.
Target: under 2 GB beyond the model.

.venv/bin/python benchmarks/memory.py [N …] .venv/bin/python benchmarks/memory.py training [N …]
"""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import yaml

from flows.presets import preset_text
from tasks.core.imaging.shards import encode_png, write_shards
from tasks.core.paths import Paths
from tasks.core.tables import write_table

REPOSITORY = Path(__file__).resolve().parent.parent
SIZES = (1_000, 20_000)
TRAINED_SIZES = (1_000, 100_000)
TRAINED_SIDE_PX, DISTINCT_CROPS = 64, 200
MAX_TRAINING_MIB = 2_000_000_000 / (1 << 20)  # the model, of a few MB, counted too
LABELS = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
STAGES = ("ingest", "check", "crop", "split", "evaluate base")
MODEL = """
from pathlib import Path
from tasks.core.models.backbones import build_module
from tasks.core.models.checkpoint import empty_seen_table, save_model
from tasks.core.models.spec import ModelSpec
labels = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
spec = ModelSpec(architecture="lenet5", labels=labels, input_size_px=48, color="rgb",
                 mean=(0.5,) * 3, std=(0.5,) * 3, version="", source="random weights")
save_model(Path("models/base"), build_module("lenet5", 7, 3), spec, empty_seen_table())
"""


def project(folder: Path, images: int) -> Path:
    """Make a clone whose data set has that many small images, one folder per class."""
    subprocess.run(["git", "clone", "-q", str(REPOSITORY), str(folder)], check=True)
    (folder / ".venv").symlink_to(REPOSITORY / ".venv")
    params = yaml.safe_load(preset_text(folder, folder / "presets" / "quick.yaml"))
    params["draw"].update(size_px=128, subjects={"adult": 30})
    params["crop"].update(size_px=64)
    params["ingest"]["datasets"] = {"small": {"adapter": "folder"}}
    params["check"].update(
        group_by=["emotion"], required_columns=[], age_bands=["child", "adolescent", "adult"]
    )
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    run(folder, "-m", "tasks", "draw")
    originals = sorted((folder / "data" / "raw" / "drawn").glob("*.jpg"))
    for number in range(images):
        original = originals[number % len(originals)]
        place = folder / "data" / "raw" / "small" / original.stem.split("_")[3]
        place.mkdir(parents=True, exist_ok=True)
        content, note = original.read_bytes(), f"{number:08d}".encode()
        comment = b"\xff\xfe" + (len(note) + 2).to_bytes(2, "big") + note  # a JPEG COM segment
        (place / f"{number:08d}.jpg").write_bytes(content[:2] + comment + content[2:])
    run(folder, "-c", MODEL)
    return folder


def run(folder: Path, *arguments: str) -> None:
    """Run Python in a project."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    if done.returncode != 0:
        sys.exit(f"{arguments} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def peak_mib(folder: Path, stage: str) -> float:
    """Run a stage in a separate process and return the peak of its largest process."""
    reader, writer = os.pipe()
    child = os.fork()  # the account of finished children belongs to a process
    if child == 0:
        try:
            run(folder, "-m", "tasks", *stage.split())
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
            os.write(writer, f"{peak:.1f}".encode())
        except SystemExit as error:
            print(error.code, file=sys.stderr)
        finally:
            os._exit(0)  # else it would go on as the parent does, and remove its folder
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as answer:
        output = answer.read()
    if not output:
        sys.exit(f"{stage} failed")
    return float(output)


def trained_project(folder: Path, crops: int) -> Path:
    """Make a clone whose split table and shards hold that many crops."""
    subprocess.run(["git", "clone", "-q", str(REPOSITORY), str(folder)], check=True)
    (folder / ".venv").symlink_to(REPOSITORY / ".venv")
    params = yaml.safe_load(preset_text(folder, folder / "presets" / "quick.yaml"))
    params["train"].update(backbone="lenet5", init="random", subset={}, epochs=1, batch_size=128)
    params["train"].update(input_size_px=TRAINED_SIDE_PX, device="cpu")
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    paths, rng = Paths(folder), np.random.default_rng(0)
    paths.crop_shards.mkdir(parents=True)
    paths.crop_settings.write_text("{}\n")
    coarse = rng.integers(0, 256, (DISTINCT_CROPS, 8, 8, 3)).astype(np.float32)
    sides = (TRAINED_SIDE_PX, TRAINED_SIDE_PX)
    images = [encode_png(cv2.resize(one, sides).astype(np.uint8)) for one in coarse]
    names = [f"{number:016x}" for number in range(crops)]
    members = ((f"{name}.png", images[n % DISTINCT_CROPS]) for n, name in enumerate(names))
    places = list(write_shards(members, paths.crop_shards, 10_000))
    numbers = np.arange(crops)
    table = pd.DataFrame(
        {
            "image_id": names,
            "dataset": "made",
            "subject_id": [f"made/{number // 10}" for number in numbers],
            "subject_known": True,
            "emotion": np.array(LABELS)[numbers % len(LABELS)],
            "age_band": "adult",
            "gender": "female",
            "split": np.where(numbers // 10 % 5 == 0, "validation", "train"),
            "shard": [place.shard for place in places],
            "offset_bytes": [place.offset_bytes for place in places],
            "size_bytes": [place.size_bytes for place in places],
        }
    )
    write_table(table, paths.split)
    return folder


def trained_peaks_mib(folder: Path) -> dict[str, float]:
    """Train in a separate process; return the peak of its memory, with and without files."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-m", "tasks", "train"]
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    peaks = {"VmHWM": 0.0, "RssAnon": 0.0}
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            break
        for line in status.splitlines():
            name, _, value = line.partition(":")
            if name in peaks:
                peaks[name] = max(peaks[name], float(value.split()[0]) / 1024)
        time.sleep(0.02)
    if process.wait() != 0:
        sys.exit("train failed")
    return {"resident": peaks["VmHWM"], "of which anonymous": peaks["RssAnon"]}


def training(sizes: tuple[int, ...], folder: Path) -> bool:
    """Measure and print what training takes; return whether the target is met."""
    found = {n: trained_peaks_mib(trained_project(folder / f"train-{n}", n)) for n in sizes}
    print("train               " + "".join(f"{size:>12,} crops" for size in sizes) + "   more")
    for kind in found[sizes[0]]:
        peaks = [found[size][kind] for size in sizes]
        cells = "".join(f"{peak:>14.0f} MiB" for peak in peaks)
        print(f"{kind:<20}{cells}   {peaks[-1] - peaks[0]:.0f} MiB", flush=True)
    most = max(peak["resident"] for peak in found.values())
    if not 0 < most <= MAX_TRAINING_MIB:
        print(f"train: {most:.0f} MiB, and the target is under {MAX_TRAINING_MIB:.0f}")
    return 0 < most <= MAX_TRAINING_MIB


def stages(sizes: tuple[int, ...], folder: Path) -> None:
    """Measure and print what the stages before take."""
    projects = {size: project(folder / str(size), size) for size in sizes}
    print("stage          " + "".join(f"{size:>12,} pictures" for size in sizes) + "   ratio")
    for stage in STAGES:
        peaks = [peak_mib(projects[size], stage) for size in sizes]
        cells = "".join(f"{peak:>17.0f} MiB" for peak in peaks)
        print(f"{stage:<15}{cells}   {peaks[-1] / peaks[0]:.2f}", flush=True)


def main() -> int:
    """Measure, print and return 0 where the target is met."""
    arguments = sys.argv[1:]
    training_alone = arguments[:1] == ["training"]
    sizes = tuple(int(number) for number in arguments[training_alone:])
    folder = Path(tempfile.mkdtemp(prefix="affectgap-memory-"))
    try:
        if not training_alone:
            stages(sizes or SIZES, folder)
        return 0 if training((training_alone and sizes) or TRAINED_SIZES, folder) else 1
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
