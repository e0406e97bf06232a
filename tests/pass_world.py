"""A clone in which a pass of `affectgap retrain` takes a minute, and a harness that kills it.

The stages from the pictures to the split are the real ones; in place of all that follows stands one
that makes a model with weights drawn from the split table. Intake, ledger, DVC, git, MLflow,
registry and gate are the real ones too.
"""

import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml
from batches import break_files, draw_batch, mark_ready, swap_labels
from whole_way import RUN, environment, fresh_clone

from flows.ledger.ledger import Ledger
from flows.presets import preset_text
from tasks.core.paths import Paths

EMOTIONS = ("anger", "disgust", "happiness")
SIZE_PX = 192
_REAL = ("draw", "ingest", "check", "crop", "split")
_TABLES = Path(__file__).parent / "register" / "data"
_GRACE_S = 20

MADE_MODEL = '''
"""In place of training: weights drawn from the split table."""
import hashlib, json, shutil, time
from pathlib import Path
from tasks.core.parallel.process import die_with_parent
die_with_parent()
import pandas as pd
import torch
from tasks.core.models.backbones import build_module
from tasks.core.models.checkpoint import save_model
from tasks.core.models.spec import ModelSpec
torch.set_num_threads(1)
split = Path("data/split.parquet")
torch.manual_seed(int(hashlib.sha256(split.read_bytes()).hexdigest()[:12], 16))
table = pd.read_parquet(split)
labels = tuple(sorted(table["emotion"].unique()))
spec = ModelSpec(
    architecture="compact", labels=labels, input_size_px=48, color="rgb",
    mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), version="", source="made here",
)
seen = table.loc[table["split"] != "test", ["image_id", "subject_id", "split"]]
seen = seen.rename(columns={"split": "role"}).assign(stage="train")
folder = Path("models/finetuned")
shutil.rmtree(folder, ignore_errors=True)
columns = ["image_id", "subject_id", "stage", "role"]
save_model(folder, build_module("compact", len(labels), 3, 48), spec, seen[columns])
shutil.copy("data/crops/crop.json", folder / "crop.json")
for path in Path("small_tables").glob("*.csv"):
    Path("reports/tables").mkdir(parents=True, exist_ok=True)
    shutil.copy(path, Path("reports/tables") / path.name)
print("train: a model was made (0 s)")
'''


def small_params(clone: Path, **draw: Any) -> dict[str, Any]:
    """The quick preset made smaller; three emotions, all shown clearly."""
    params = yaml.safe_load(preset_text(clone, clone / "presets" / "quick.yaml"))
    clear = {"intensity_mean": 0.95, "intensity_sd": 0.05, "unit_mixing": 0.0}
    params["draw"] |= {"size_px": SIZE_PX, "emotions": list(EMOTIONS), **draw}
    params["draw"]["expression"] = {name: clear for name in params["draw"]["expression"]}
    for section in ("draw", "ingest", "crop", "explain"):
        params[section]["workers"] = 1
    params["check"] |= {"emotions": list(EMOTIONS), "min_rows": 10}
    params["check"] |= {"min_per_group": 1, "min_subjects_per_group": 1}
    params["finetune"]["allow_empty_group"] = True
    params["retrain"] |= {"new_images": 6, "new_children": 2}
    params["promote"] |= {"resamples": 200, "min_n": 6, "min_subjects": 2}
    return params


def write_params(clone: Path, params: dict[str, Any]) -> None:
    text = yaml.safe_dump(params, sort_keys=False)
    (clone / "params.yaml").write_text(text, encoding="utf-8")


def small_project(folder: Path) -> Paths:
    """A clone with the short graph, under git, whose gate lets every model through."""
    clone = fresh_clone(folder, "quick")
    graph = yaml.safe_load((clone / "dvc.yaml").read_text(encoding="utf-8"))
    stages = {name: graph["stages"][name] for name in _REAL}
    tables = sorted(path.name for path in _TABLES.glob("*.csv"))
    stages["train"] = {
        "cmd": "exec .venv/bin/python small_train.py",
        "deps": ["data/split.parquet", "data/crops", "small_train.py"],
        "outs": ["models/finetuned", *(f"reports/tables/{name}" for name in tables)],
    }
    (clone / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
    (clone / "small_train.py").write_text(MADE_MODEL, encoding="utf-8")
    shutil.copytree(_TABLES, clone / "small_tables")
    params = small_params(clone, subjects={"adult": 10}, images_per_emotion=1)
    anything = {"overall": 1.0, "group": 1.0, "calibration": 1.0}
    params["promote"]["margins"] = {**anything, "robustness": 1.0}
    params["promote"]["not_judged"] = "promote"  # there are hardly any children
    params["split"]["seed"] = 16  # two test people of each gender: groups that can be judged
    floors = {"overall": 0.0, "worst_group": 0.0, "calibration": 2.0, "robustness": 1.0}
    params["promote"]["absolute_limits"] = floors
    write_params(clone, params)
    commit_all(clone)
    return Paths(clone)


def commit_all(clone: Path) -> None:
    git(clone, "add", "-A", "--", ".", ":!.venv")
    who = ("-c", "user.name=x", "-c", "user.email=x@localhost")
    git(clone, *who, "commit", "-q", "-m", "start")


def git(clone: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=clone, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def three_batches(paths: Paths, people: int = 3) -> None:
    """Put a good batch, one with other labels and a broken one into the inbox."""
    how = {"emotions": EMOTIONS, "size_px": SIZE_PX}
    mark_ready(draw_batch(paths.inbox / "good", 101, people, **how))
    mark_ready(swap_labels(draw_batch(paths.inbox / "other", 201, people, **how)))
    broken = draw_batch(paths.inbox / "broken", 301, people, **how)
    break_files(broken)
    mark_ready(broken)


def start(paths: Paths, *command: str, **more: Any) -> subprocess.Popen[str]:
    """Begin a command of ours; its output is kept in work/said.txt."""
    paths.at("work").mkdir(exist_ok=True)
    with paths.at("work/said.txt").open("a", encoding="utf-8") as said:
        return subprocess.Popen(
            [*RUN, *command],
            cwd=paths.root,
            env={**environment(paths.root), **more},
            stdout=said,
            stderr=subprocess.STDOUT,
            text=True,
        )


def run(paths: Paths, *command: str, code: int = 0, **more: Any) -> str:
    """Run a command of ours to its end and return what it said."""
    done = subprocess.run(
        [*RUN, *command],
        cwd=paths.root,
        env={**environment(paths.root), **more},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout + done.stderr


def kill(process: subprocess.Popen[str]) -> bool:
    """SIGKILL a command alone; everything that it started must end by itself."""
    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    alive = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    psutil.wait_procs(family, timeout=_GRACE_S)
    left = [one for one in family if _is_alive(one)]
    assert not left, [one.cmdline() for one in left]
    return alive


@dataclass(frozen=True)
class Outcome:
    """What passes leave, without times: equal, however often they were killed."""

    files: dict[str, bytes]
    batches: list[tuple[Any, ...]]
    images: list[tuple[Any, ...]]
    untrained: int
    decisions: list[tuple[str, ...]]
    in_use: int | None
    versions: list[str]


def outcome(paths: Paths) -> Outcome:
    from tasks.core.tracking import mlflow_runs
    from tasks.register.promotion_log import read_records
    from tasks.register.registry import champion, versions

    client, experiment = mlflow_runs.open_store(paths)
    assert not client.search_runs([experiment], "attributes.status = 'RUNNING'")
    ledger = Ledger(paths.ledger)
    assert not ledger.under_way() and ledger.untracked().empty
    batches = ledger.batches()[["batch", "dataset", "digest", "state", "n_pictures", "reason"]]
    images = ledger.images()[["batch", "path", "sha256", "state"]]
    records = read_records(paths)[["action", "version", "digest", "previous", "tag"]]
    in_use = champion(paths)
    return Outcome(
        files=dict(_files(paths)),
        batches=sorted(batches.itertuples(index=False, name=None)),
        images=sorted(images.itertuples(index=False, name=None)),
        untrained=len(ledger.untrained()),
        decisions=list(records.itertuples(index=False, name=None)),
        in_use=None if in_use is None else in_use.number,
        versions=[version.digest for version in versions(paths)],
    )


def assert_every_image_is_in_one_place(paths: Paths, given: dict[str, bytes]) -> None:
    """`given`: what the senders put down, by `<batch>/<file>`, without the marks."""
    found: dict[str, list[str]] = {name: [] for name in given}
    for place in ("data/inbox", "data/raw", "data/quarantine"):
        for path in paths.at(place).rglob("*.jpg"):
            name = f"{path.parent.name}/{path.name}"
            if name in given:
                assert path.read_bytes() == given[name], path
                found[name].append(str(path))
    assert {name: places for name, places in found.items() if len(places) != 1} == {}
    ledger = Ledger(paths.ledger)
    for batch, place in ledger.places().items():
        assert paths.at(place).is_dir(), (batch, place)
    accepted = ledger.images().query("state == 'accepted'")
    arrived = {path.relative_to(paths.raw).as_posix() for path in paths.raw.glob("arrived/*/*.jpg")}
    assert arrived == set(accepted["path"])


def images_in_inbox(paths: Paths) -> dict[str, bytes]:
    return {f"{p.parent.name}/{p.name}": p.read_bytes() for p in paths.inbox.rglob("*.jpg")}


def our_processes(paths: Paths) -> list[str]:
    """Command lines of the processes that work in the project."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()) == paths.root and _is_alive(process):
                found.append(" ".join(process.cmdline()))  # "" while it is ending
        except (psutil.Error, OSError):
            continue
    return [command for command in found if command]


def copy_project(paths: Paths, folder: Path) -> Paths:
    """Copy a project as it stands, with its stores; MLflow's paths are made those of the copy."""
    subprocess.run(["cp", "-a", str(paths.root), str(folder)], check=True)
    with sqlite3.connect(folder / "mlruns" / "mlflow.db") as database:
        old, new = str(paths.root), str(folder)
        for table, column in _PLACES:
            database.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (old, new))
    return Paths(folder)


_PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("logged_models", "artifact_location"),
)


def _files(paths: Paths) -> Iterator[tuple[str, bytes]]:
    patterns = ("data/*.parquet", "data/*/*.parquet", "data/rejects/*.csv", "reports/tables/*.csv")
    for pattern in (*patterns, "models/*/*.safetensors", "models/*/seen.csv", "data/crops/*.tar"):
        for path in sorted(paths.root.glob(pattern)):
            if "raw" not in path.parts:
                yield str(path.relative_to(paths.root)), path.read_bytes()


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(what: Any, seconds: float = 120) -> bool:
    """Ask until something is so; False where it is not after that time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if what():
            return True
        time.sleep(0.05)
    return False
