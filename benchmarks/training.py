"""Claims: training costs little more than its arithmetic, and far less than the plain method.

Prints ratios of images a second, each measured in one run with rounds of one taking turns with
rounds of the other (medians of paired rounds), at 224 px and a batch of 32:

- our loop (`Trainer.train_epoch`: pixels from the cache on the disk, full augmentation, bf16 where
  `precision: auto` chooses it) over the limit: bare forward, backward and step on one batch that
  stays in memory, in the same precision and memory format. Targets: 0.85 for mobilenet_v3_small,
  0.95 for resnet50 (0.90 on a GPU).
- our loop over the plain method: an ImageFolder of JPEG crops, a DataLoader with 2 workers, v2
  transforms image by image, default memory format, float32, Adam, in a separate process.
  Targets: 3 and 4 times.
- `head` on features that are computed once over the head trained through the frozen backbone, on
  the same pixels: whole trainings, and the largest difference of their validation losses. Target:
  5 times, the same result.

With `--accuracy`: our method and the plain one on the drawn cohort, five seeds each; validation
accuracy of the last epoch, the mean difference and its interval.

    .venv/bin/python benchmarks/training.py [--device cuda] [--compile always] [BACKBONE …]
    .venv/bin/python benchmarks/training.py --head
    .venv/bin/python benchmarks/training.py --accuracy
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when torch is loaded

import cv2
import numpy as np
import pandas as pd
import torch
import yaml
from rounds import require_possible
from scipy import stats
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from tasks.core.imaging.shards import encode_png, read_crops, write_shards
from tasks.core.models.backbones import build_module
from tasks.core.models.device import choose_device, uses_bfloat16
from tasks.core.models.predictor import Normalization
from tasks.core.models.spec import ModelSpec
from tasks.core.parallel.execution import process_pool
from tasks.core.paths import Paths
from tasks.core.tables import write_table
from tasks.core.training.config import TrainConfig
from tasks.core.training.data.dataset import ImageDataset, load_images
from tasks.core.training.distributed import init_process_group
from tasks.core.training.fit import fit
from tasks.core.training.linear_probe import HeadOnly, fit_head
from tasks.core.training.optimizers import learning_rate
from tasks.core.training.strategy import Strategy
from tasks.core.training.trainer import Trainer

ROOT = Path(__file__).resolve().parent.parent
LABELS = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIDE_PX, BATCH = 224, 32
STEPS = {"mobilenet_v3_small": 12, "resnet50": 6}  # a round; of others 8
# Enough that what the loader's workers had ready beforehand (4 batches) does not decide.
PLAIN_STEPS = {"mobilenet_v3_small": 16, "resnet50": 6}
TARGETS = {"mobilenet_v3_small": (0.85, 3.0), "resnet50": (0.95, 4.0)}  # of limit, of plain way
MAX_GPU_TARGET = 0.9  # of the limit
HEAD_TARGET, MAX_APART = 5.0, 1e-3  # times as fast; between two validation losses
ROUNDS = 4
HEAD_BACKBONE, HEAD_IMAGES, HEAD_EPOCHS, HEAD_ROUNDS = "mobilenet_v3_small", 256, 20, 2
ACCURACY_BACKBONE, ACCURACY_SIDE_PX = "compact", 96
ACCURACY_ADULTS, ACCURACY_EPOCHS, ACCURACY_SEEDS = 60, 15, 5
# What the study that this project repeats did to its images; our ranges where it names none.
AUGMENTATION = {
    "flip": 0.5,
    "rotation_deg": 30,
    "shear_deg": 10,
    "scale": [0.9, 1.1],
    "shift": 0.06,
    "brightness": 0.25,
    "contrast": 0.25,
    "saturation": 0.25,
    "gray": 0.1,
}
STILL = {**dict.fromkeys(AUGMENTATION, 0), "scale": [1, 1]}


def recipe(**changed: Any) -> TrainConfig:
    """Return section `train` of params.yaml as a recipe, with the study's augmentation."""
    section = yaml.safe_load((ROOT / "presets" / "default.yaml").read_text())["train"]
    wanted = {key: section[key] for key in TrainConfig.model_fields} | {"batch_size": BATCH}
    return TrainConfig.model_validate(
        wanted | {"augmentation": AUGMENTATION, "subset": {}} | changed
    )


def spec_of(backbone: str, side_px: int = SIDE_PX) -> ModelSpec:
    """Describe a network for color images."""
    return ModelSpec(
        architecture=backbone,
        labels=LABELS,
        input_size_px=side_px,
        color="rgb",
        mean=MEAN,
        std=STD,
        version="",
        source="",
    )


def write_crops(root: Path, n_crops: int) -> Paths:
    """Write smooth synthetic crops as the crop stage does, and as JPEG in one folder per class."""
    paths, rng = Paths(root), np.random.default_rng(0)
    paths.crop_shards.mkdir(parents=True)
    members, rows = [], []
    for number in range(n_crops):
        coarse = rng.integers(0, 256, (14, 14, 3)).astype(np.float32)
        smooth = cv2.resize(coarse, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_CUBIC)
        grain = rng.normal(0, 4, smooth.shape)  # a photograph's, so that JPEG has work to do
        crop = (smooth + grain).clip(0, 255).astype(np.uint8)
        emotion = LABELS[number % len(LABELS)]
        place = root / "jpeg" / emotion / f"{number:06d}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(place), crop[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
        members.append((f"{number:016x}.png", encode_png(crop)))
        rows.append({"image_id": f"{number:016x}", "emotion": emotion, "split": "train"})
    table = pd.DataFrame(rows)
    places = list(write_shards(members, paths.crop_shards, 1000))
    for column in ("shard", "offset_bytes", "size_bytes"):
        table[column] = [getattr(place, column) for place in places]
    write_table(table, paths.split)
    return paths


def plain_transform(side_px: int) -> Callable[[Any], torch.Tensor]:
    """Make the same kinds of changes with torchvision's transforms, image by image."""
    ranges = AUGMENTATION
    return v2.Compose(
        [
            v2.RandomHorizontalFlip(ranges["flip"]),
            v2.RandomAffine(
                degrees=ranges["rotation_deg"],
                translate=(ranges["shift"], ranges["shift"]),
                scale=ranges["scale"],
                shear=ranges["shear_deg"],
                interpolation=v2.InterpolationMode.BILINEAR,
            ),
            v2.ColorJitter(ranges["brightness"], ranges["contrast"], ranges["saturation"]),
            v2.RandomGrayscale(ranges["gray"]),
            v2.Resize((side_px, side_px)),  # does nothing where they have that size
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )


def take_steps(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[tuple[torch.Tensor, torch.Tensor]],
    bfloat16: bool,
) -> None:
    """Train on batches, as every tutorial does."""
    module.train()
    for x, targets in batches:
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=bfloat16):
            logits = module(x)
        loss = nn.functional.cross_entropy(logits.float(), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


class Limit:
    """Bare forward, backward and step on one batch that stays in memory."""

    def __init__(self, backbone: str, device: torch.device, n_steps: int) -> None:
        torch.manual_seed(0)
        module = build_module(backbone, len(LABELS), 3).to(device)
        self.module = module.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.Adam(module.parameters(), lr=1e-3, fused=True)
        x = torch.randn(BATCH, 3, SIDE_PX, SIDE_PX, device=device)
        self.x = x.contiguous(memory_format=torch.channels_last)
        self.targets = torch.randint(0, len(LABELS), (BATCH,), device=device)
        self.bfloat16 = uses_bfloat16("auto", device, module)
        self.n_steps = n_steps

    def __call__(self) -> None:
        """Take a round's steps."""
        same = ((self.x, self.targets) for _ in range(self.n_steps))
        take_steps(self.module, self.optimizer, same, self.bfloat16)


class Ours:
    """An epoch of the project's own loop, on as many images as a round has."""

    def __init__(
        self, backbone: str, device: str, compiling: str, paths: Paths, n_steps: int
    ) -> None:
        spec = spec_of(backbone)
        rows = pd.read_parquet(paths.split).iloc[: n_steps * BATCH]
        self.images = load_images(rows, paths, spec)
        torch.manual_seed(0)
        module = build_module(backbone, len(LABELS), 3)
        self._joined = init_process_group(device)
        group = self._joined.__enter__()
        how = recipe(device=device, epochs=1000, compile=compiling)
        self.trainer = Trainer(module, spec, how, Strategy(), self.images, group)
        self.epoch = 0

    def __call__(self) -> None:
        """Train an epoch."""
        self.epoch += 1
        self.trainer.train_epoch(self.images, self.epoch)


class Plain:
    """The tutorial's way: its loader is running before the clock starts."""

    def __init__(self, backbone: str, device: torch.device, paths: Paths, n_steps: int) -> None:
        torch.manual_seed(0)
        self.module = build_module(backbone, len(LABELS), 3).to(device)
        self.optimizer = torch.optim.Adam(self.module.parameters(), lr=1e-3)
        self.data = ImageFolder(str(paths.root / "jpeg"), plain_transform(SIDE_PX))
        self.device, self.n_steps = device, n_steps
        self.coming: Iterator[Any] = iter(())

    def prepare(self) -> None:
        """Start the workers and take the batches that they had time to make without a step."""
        repeats = -(-(self.n_steps + 8) * BATCH // len(self.data))
        data = torch.utils.data.ConcatDataset([self.data] * repeats)
        loader = DataLoader(data, BATCH, shuffle=True, num_workers=2, drop_last=True)
        self.coming = (tuple(part.to(self.device) for part in batch) for batch in loader)
        for _ in islice(self.coming, 1):
            pass

    def __call__(self) -> None:
        """Take a round's steps."""
        take_steps(self.module, self.optimizer, islice(self.coming, self.n_steps), False)


def seconds(work: Callable[[], None], device: torch.device) -> float:
    """Return how long something takes, the device's part included."""
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


@lru_cache(maxsize=1)
def plain_of(backbone: str, device: torch.device, root: Path, n_steps: int) -> Plain:
    """Set up the plain method once per process."""
    return Plain(backbone, device, Paths(root), n_steps)


def plain_seconds(backbone: str, device: torch.device, root: Path, n_steps: int) -> float:
    """Return how long a round of the plain method takes, in a process that did nothing else."""
    plain = plain_of(backbone, device, root, n_steps)
    plain.prepare()
    took = seconds(plain, device)
    plain.coming = iter(())  # ends the workers
    return took


def compare(backbone: str, device: torch.device, compiling: str, paths: Paths) -> bool:
    """Print a backbone's two ratios; return whether its targets are met."""
    n_steps, plain_steps = STEPS.get(backbone, 8), PLAIN_STEPS.get(backbone, 8)
    limit = Limit(backbone, device, n_steps)
    ours = Ours(backbone, str(device), compiling, paths, n_steps)
    ms: dict[str, list[float]] = {"limit": [], "ours": [], "plain": []}
    # In a separate process: ours sets the allocator of the process that it trains in.
    with process_pool(1) as pool:

        def limit_seconds() -> float:
            torch.use_deterministic_algorithms(False)
            return seconds(limit, device) / n_steps

        def ours_seconds() -> float:
            torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
            return seconds(ours, device) / n_steps

        def plain_way_seconds() -> float:
            asked = pool.submit(plain_seconds, backbone, device, paths.root, plain_steps)
            return asked.result() / plain_steps

        sides = {"limit": limit_seconds, "plain": plain_way_seconds, "ours": ours_seconds}
        for number in range(ROUNDS + 1):
            for name in list(sides)[:: -1 if number % 2 else 1]:
                value = sides[name]()
                if number:  # the first round warms up
                    ms[name].append(1000 * value / BATCH)
    to_limit = [a / b for a, b in zip(ms["limit"], ms["ours"], strict=True)]
    to_plain = [a / b for a, b in zip(ms["plain"], ms["ours"], strict=True)]
    timings = ", ".join(f"{name} {min(v):.2f}/{median(v):.2f}" for name, v in ms.items())
    precision = "bf16" if limit.bfloat16 else "float32"
    print(f"{backbone} ({device.type}, {precision}): ms a picture, best/median: {timings}")
    over_limit = require_possible(f"{backbone}: our loop", median(to_limit))
    print(f"  ours over the limit     {over_limit:.3f}   (rounds {listed(to_limit)})")
    print(
        f"  ours over the plain way {median(to_plain):.2f}    (rounds {listed(to_plain)})",
        flush=True,
    )
    of_limit, of_plain = TARGETS.get(backbone, (0.0, 0.0))
    if device.type == "cuda":
        of_limit = min(of_limit, MAX_GPU_TARGET)
    return over_limit >= of_limit and median(to_plain) >= of_plain


def listed(values: list[float]) -> str:
    """Write numbers in one line."""
    return ", ".join(f"{value:.2f}" for value in values)


def settled(backbone: str, images: ImageDataset, spec: ModelSpec) -> nn.Module:
    """Make a network whose batch normalization knows the images; else features are nothing."""
    torch.manual_seed(0)
    module = build_module(backbone, len(LABELS), 3).train()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 1.0
    x = Normalization(spec, torch.device("cpu"))(torch.from_numpy(images.batch(np.arange(32))))
    with torch.no_grad():
        module(x)
    return module


def compare_heads(device: torch.device, paths: Paths, folder: Path) -> bool:
    """Print how much faster the head is on features, and how far the outcomes are apart.

    The time includes computing the features: each training has a separate folder, which is
    empty. Returns whether the target is met.
    """
    spec = spec_of(HEAD_BACKBONE)
    table = pd.read_parquet(paths.split).iloc[:HEAD_IMAGES]
    n_train = len(table) * 3 // 4
    train, validation = (
        load_images(rows, paths, spec) for rows in (table.iloc[:n_train], table.iloc[n_train:])
    )
    how = recipe(device=str(device), epochs=HEAD_EPOCHS, learning_rate=0.003, augmentation=STILL)
    ratios, apart = [], 0.0
    for number in range(HEAD_ROUNDS):
        took, losses = {}, {}
        for way in (fit, fit_head)[:: -1 if number % 2 else 1]:
            module = settled(HEAD_BACKBONE, train, spec)
            work = folder / f"{way.__name__}-{number}"
            started = time.perf_counter()
            done = way(module, spec, train, validation, how, HeadOnly(), work, True)
            took[way] = time.perf_counter() - started
            losses[way] = done.history["valid_loss"].to_numpy()
        ratios.append(took[fit] / took[fit_head])
        apart = max(apart, float(np.abs(losses[fit] - losses[fit_head]).max()))
    print(
        f"head of {HEAD_BACKBONE} ({device.type}), {HEAD_EPOCHS} epochs of {n_train} pictures, "
        f"{len(table) - n_train} to validate on: on features {median(ratios):.1f} times as fast "
        f"(rounds {listed(ratios)}); validation loss {losses[fit][0]:.3f} at first, "
        f"{losses[fit][-1]:.3f} at last, largest difference between the two {apart:.1e}"
    )
    return median(ratios) >= HEAD_TARGET and apart < MAX_APART


def drawn_cohort(folder: Path) -> Paths:
    """Draw a small cohort with the project's own stages, and write its crops as JPEG too."""
    for name in ("tasks", "flows"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__py*"))
    shutil.copy(ROOT / "dvc.yaml", folder)
    params = yaml.safe_load((ROOT / "presets" / "default.yaml").read_text(encoding="utf-8"))
    params["draw"]["subjects"] = {"adult": ACCURACY_ADULTS}
    params["check"].update(group_by=["emotion"])
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    for stage in ("draw", "ingest", "check", "crop", "split"):
        command = [sys.executable, "-m", "tasks", stage]
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    paths = Paths(folder)
    table = pd.read_parquet(paths.split)
    train = table[table["split"] == "train"]
    for row, crop in zip(train.itertuples(), read_crops(train, paths.crop_shards), strict=True):
        place = folder / "jpeg" / row.emotion / f"{row.image_id}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(place), crop[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    return paths


def accuracy_of_ours(
    seed: int, how: TrainConfig, paths: Paths, images: list[ImageDataset]
) -> float:
    """Train our way and return the validation accuracy of the last epoch."""
    spec = spec_of(ACCURACY_BACKBONE, ACCURACY_SIDE_PX)
    torch.manual_seed(seed)
    module = build_module(ACCURACY_BACKBONE, len(LABELS), 3)
    work = paths.at(f"work/benchmark/{seed}")
    fitted = fit(module, spec, *images, how, Strategy(), work, False)
    return float(fitted.history["valid_accuracy_score"].iloc[-1])


def accuracy_of_plain(seed: int, how: TrainConfig, paths: Paths, validation: ImageDataset) -> float:
    """Train by the plain method, with the same schedule, and validate on the same images."""
    torch.use_deterministic_algorithms(False)
    torch.manual_seed(seed)
    spec = spec_of(ACCURACY_BACKBONE, ACCURACY_SIDE_PX)
    module = build_module(ACCURACY_BACKBONE, len(LABELS), 3)
    data = ImageFolder(str(paths.root / "jpeg"), plain_transform(ACCURACY_SIDE_PX))
    loader = DataLoader(data, how.batch_size, shuffle=True, num_workers=2, drop_last=True)
    optimizer = torch.optim.Adam(module.parameters(), lr=how.learning_rate)
    for epoch in range(how.epochs):
        for step, batch in enumerate(loader, start=epoch * len(loader)):
            rate = learning_rate(how, step, how.epochs * len(loader))
            optimizer.param_groups[0]["lr"] = rate
            take_steps(module, optimizer, iter([batch]), False)
    module.eval()
    normalize, right = Normalization(spec, torch.device("cpu")), 0
    with torch.inference_mode():
        for rows in validation.in_parts(64):
            answers = module(normalize(torch.from_numpy(validation.batch(rows)))).argmax(dim=1)
            right += int((answers.numpy() == validation.targets[rows]).sum())
    return right / len(validation)


def compare_accuracy(folder: Path) -> None:
    """Print both ways' validation accuracies and the interval of their difference."""
    paths = drawn_cohort(folder)
    spec = spec_of(ACCURACY_BACKBONE, ACCURACY_SIDE_PX)
    table = pd.read_parquet(paths.split)
    images = [
        load_images(table[table["split"] == split], paths, spec)
        for split in ("train", "validation")
    ]
    ours, plain = [], []
    for seed in range(ACCURACY_SEEDS):
        how = recipe(seed=seed, epochs=ACCURACY_EPOCHS, device="cpu")
        ours.append(accuracy_of_ours(seed, how, paths, images))
        plain.append(accuracy_of_plain(seed, how, paths, images[1]))
        print(f"  seed {seed}: ours {ours[-1]:.3f}, plain {plain[-1]:.3f}", flush=True)
    apart = np.array(ours) - np.array(plain)
    spread = apart.std(ddof=1) / np.sqrt(len(apart))
    low, high = stats.t.interval(0.95, len(apart) - 1, apart.mean(), spread)
    print(
        f"{ACCURACY_BACKBONE} at {ACCURACY_SIDE_PX} px, {len(images[0])} drawn pictures, "
        f"{ACCURACY_EPOCHS} epochs: validation accuracy ({len(images[1])} pictures) ours "
        f"{np.mean(ours):.3f}, plain {np.mean(plain):.3f}; difference {apart.mean():+.3f} "
        f"[{low:+.3f}, {high:+.3f}] over {len(apart)} seeds"
    )


def main() -> int:
    """Measure, print and return 0 where every target is met."""
    parser = argparse.ArgumentParser()
    parser.add_argument("backbones", nargs="*", default=list(STEPS))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compile", choices=("never", "auto", "always"), default="never")
    parser.add_argument("--head", action="store_true")
    parser.add_argument("--accuracy", action="store_true")
    asked = parser.parse_args()
    device = choose_device(asked.device)
    with tempfile.TemporaryDirectory(prefix="affectgap-training-") as name:
        folder = Path(name)
        if asked.accuracy:
            compare_accuracy(folder)
            return 0
        paths = write_crops(folder, max(max(STEPS.values()) * BATCH, HEAD_IMAGES))
        met = []
        if not asked.head:
            met = [compare(name, device, asked.compile, paths) for name in asked.backbones]
        met.append(compare_heads(device, paths, folder))
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
