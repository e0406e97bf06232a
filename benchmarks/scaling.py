"""Cost per number of images: each stage's time, memory and disk space at several sizes.

Drawn images of 256 px (copies differ by a comment in the file, so that none is a duplicate) go
through ingest, check, crop, split and evaluate. Each stage is a separate command without cached
results. CPU time covers all processes, so that other load on the machine changes it little. A line
is fitted over the sizes; its slope is the cost per image. The exponent between the two largest
sizes shows how well a line fits (1: proportional; less: the fixed part still matters). Figures
beyond the largest size are extrapolated.

.venv/bin/python benchmarks/scaling.py [N …]
"""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml

from flows.presets import preset_text

REPOSITORY = Path(__file__).resolve().parent.parent
SIZES = (1_000, 5_000, 20_000)
TOLD = (1_000, 20_000, 100_000, 1_000_000, 10_000_000)
STAGES = ("ingest", "check", "crop", "split", "evaluate base")
MODEL = """
from pathlib import Path
from tasks.core.models.backbones import build_module
from tasks.core.models.checkpoint import empty_seen_table, save_model
from tasks.core.models.spec import ModelSpec
labels = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
spec = ModelSpec(architecture="compact", labels=labels, input_size_px=96, color="rgb",
                 mean=(0.5,) * 3, std=(0.5,) * 3, version="", source="random weights")
save_model(Path("models/base"), build_module("compact", 7, 3), spec, empty_seen_table())
"""


class Cost(NamedTuple):
    """CPU seconds of all processes, wall-clock seconds and peak MiB of a stage."""

    cpu_s: float
    wall_s: float
    peak_mib: float


def project(folder: Path) -> list[Path]:
    """Copy the working tree's code, draw some faces, and return them."""
    for name in ("tasks", "flows", "given"):
        shutil.copytree(REPOSITORY / name, folder / name)
    shutil.copy(REPOSITORY / "dvc.yaml", folder / "dvc.yaml")
    params = yaml.safe_load(preset_text(REPOSITORY, REPOSITORY / "presets" / "quick.yaml"))
    params["draw"].update(subjects={"adult": 30})
    params["ingest"]["datasets"] = {"many": {"adapter": "folder"}}
    params["check"].update(group_by=["emotion"], required_columns=[])
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    run(folder, "-m", "tasks", "draw")
    run(folder, "-c", MODEL)
    return sorted((folder / "data/raw/drawn").glob("*.jpg"))


def grow(folder: Path, originals: list[Path], images: int) -> None:
    """Bring the data set to that many images."""
    for number in range(images):
        original = originals[number % len(originals)]
        place = folder / "data/raw/many" / original.stem.split("_")[3] / f"{number:08d}.jpg"
        if place.exists():
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        content, note = original.read_bytes(), f"{number:08d}".encode()
        comment = b"\xff\xfe" + (len(note) + 2).to_bytes(2, "big") + note  # a JPEG COM segment
        place.write_bytes(content[:2] + comment + content[2:])


def run(folder: Path, *arguments: str) -> None:
    """Run Python in the project."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{arguments} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def cost_of(folder: Path, stage: str) -> Cost:
    """Run a stage in a separate process, without cached results."""
    shutil.rmtree(folder / "work", ignore_errors=True)
    reader, writer = os.pipe()
    child = os.fork()  # the account of finished children belongs to a process
    if child == 0:
        try:
            started = time.monotonic()
            run(folder, "-m", "tasks", *stage.split())
            wall, used = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu, peak = used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
            os.write(writer, f"{cpu} {wall} {peak}".encode())
        except SystemExit as error:
            print(error.code, file=sys.stderr)
        finally:
            os._exit(0)  # else it would go on as the parent does, and remove its folder
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as answer:
        output = answer.read().split()
    if not output:
        sys.exit(f"{stage} failed")
    return Cost(*map(float, output))


def bytes_of(folder: Path) -> int:
    """Add up what the stages wrote."""
    outputs = [folder / "data/crops", *(folder / "data").glob("**/*.parquet")]
    files = [f for path in outputs for f in ([path] if path.is_file() else path.rglob("*"))]
    return sum(file.stat().st_size for file in set(files) if file.is_file())


def line(sizes: tuple[int, ...], values: list[float]) -> tuple[float, float]:
    """Fit `fixed + slope * n`, relative errors weighing alike; neither part is negative."""
    from scipy.optimize import nnls

    n, y = np.array(sizes, dtype=float), np.array(values)
    weights = np.stack([1 / y, n / y], axis=1)
    fixed, slope = nnls(weights, np.ones(len(y)))[0]
    return float(fixed), float(slope)


def main() -> None:
    """Measure, fit and print."""
    sizes = tuple(map(int, sys.argv[1:])) or SIZES
    folder = Path(tempfile.mkdtemp(prefix="affectgap-bench-"))
    try:
        originals = project(folder)
        found: dict[str, list[Cost]] = {stage: [] for stage in STAGES}
        disk = []
        for size in sizes:
            grow(folder, originals, size)
            for stage in STAGES:
                found[stage].append(cost_of(folder, stage))
                cost = found[stage][-1]
                print(
                    f"{size:>8,} {stage:<14} CPU {cost.cpu_s:7.1f} s, wall {cost.wall_s:7.1f} s, "
                    f"peak {cost.peak_mib:5.0f} MiB",
                    flush=True,
                )
            disk.append(float(bytes_of(folder)))
            print(f"{size:>8,} crops, tables {disk[-1] / 2**20:.1f} MiB", flush=True)
        if len(sizes) > 1:
            tell(sizes, found, disk)
    finally:
        shutil.rmtree(folder)


def tell(sizes: tuple[int, ...], found: dict[str, list[Cost]], disk: list[float]) -> None:
    """Print the cost of an image, and what the line says of other numbers."""
    print(f"\n{'':14}{'fixed':>9}{'a picture':>13}{'exponent':>10}   CPU hours by the line for …")
    print(f"{'':14}{'s':>9}{'ms of CPU':>13}{'':>10}" + "".join(f"{n:>12,}" for n in TOLD))
    for stage, costs in found.items():
        cpu = [cost.cpu_s for cost in costs]
        fixed, slope = line(sizes, cpu)
        ratio = np.log(cpu[-1] / cpu[-2]) / np.log(sizes[-1] / sizes[-2])
        hours = "".join(f"{(fixed + slope * n) / 3600:>12.2f}" for n in TOLD)
        print(f"{stage:<14}{fixed:>9.1f}{slope * 1000:>13.2f}{ratio:>10.2f}{hours}")
    for stage, costs in found.items():
        fixed, slope = line(sizes, [cost.peak_mib for cost in costs])
        gib = "".join(f"{(fixed + slope * n) / 1024:>12.2f}" for n in TOLD)
        kib = slope * 1024
        print(f"{stage:<14}{fixed:>9.0f} MiB{kib:>9.2f} KiB{'':>10}{gib} GiB at the peak")
    fixed, slope = line(sizes, disk)
    gib = "".join(f"{(fixed + slope * n) / 2**30:>12.2f}" for n in TOLD)
    print(f"{'crops, tables':<14}{'':>9}{slope / 1024:>9.1f} KiB{'':>10}{gib} GiB on disk")


if __name__ == "__main__":
    main()
