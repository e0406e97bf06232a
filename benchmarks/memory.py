"""Does memory grow with the number of pictures? Peak of ingest, check, crop and evaluate.

Each stage works on 1,000 and on 20,000 small pictures (drawn faces; copies differ by a comment in
the file, so that none is a repeat); prints the largest process of each and their ratio. What grows
is the table alone, a few kB a row.

    .venv/bin/python benchmarks/memory.py [N …]
"""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).resolve().parent.parent
SIZES = (1_000, 20_000)
STAGES = ("ingest", "check", "crop", "split", "evaluate base")
MODEL = """
from pathlib import Path
from tasks.core.models.backbones import build_module
from tasks.core.models.checkpoint import no_pictures_seen, save_model
from tasks.core.models.spec import ModelSpec
labels = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
spec = ModelSpec(architecture="lenet5", labels=labels, input_size_px=48, colour="rgb",
                 mean=(0.5,) * 3, std=(0.5,) * 3, version="", source="random weights")
save_model(Path("models/base"), build_module("lenet5", 7, 3), spec, no_pictures_seen())
"""


def project(folder: Path, pictures: int) -> Path:
    """Make a clone whose data set is that many small pictures, a folder a class."""
    subprocess.run(["git", "clone", "-q", str(REPOSITORY), str(folder)], check=True)
    (folder / ".venv").symlink_to(REPOSITORY / ".venv")
    params = yaml.safe_load((folder / "presets" / "quick.yaml").read_text())
    params["draw"].update(size_px=128, subjects={"adult": 30})
    params["crop"].update(size_px=64)
    params["ingest"]["datasets"] = {"small": {"adapter": "folder"}}
    params["check"].update(
        group_by=["emotion"], required=[], age_bands=["child", "adolescent", "adult"]
    )
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    run(folder, "-m", "tasks", "draw")
    originals = sorted((folder / "data" / "raw" / "drawn").glob("*.jpg"))
    for number in range(pictures):
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
    """Run a stage in a process of its own and return the peak of its largest process."""
    reader, writer = os.pipe()
    child = os.fork()  # the account of finished children belongs to a process
    if child == 0:
        run(folder, "-m", "tasks", *stage.split())
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        os.write(writer, f"{peak:.1f}".encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as answer:
        return float(answer.read() or "nan")


def main() -> None:
    """Measure and print."""
    sizes = tuple(int(number) for number in sys.argv[1:]) or SIZES
    folder = Path(tempfile.mkdtemp(prefix="affectgap-memory-"))
    try:
        projects = {size: project(folder / str(size), size) for size in sizes}
        print("stage          " + "".join(f"{size:>12,} pictures" for size in sizes) + "   ratio")
        for stage in STAGES:
            peaks = [peak_mib(projects[size], stage) for size in sizes]
            cells = "".join(f"{peak:>17.0f} MiB" for peak in peaks)
            print(f"{stage:<15}{cells}   {peaks[-1] / peaks[0]:.2f}", flush=True)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
