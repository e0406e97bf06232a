"""Several processes that train together: the same numbers as one, and one that writes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from torch import distributed, nn
from torch.nn import functional

from tasks.core.errors import ModelError, UserError
from tasks.core.models.backbones import build_module
from tasks.core.models.checkpoint import Skipped
from tasks.core.models.spec import ModelSpec
from tasks.core.parallel import process
from tasks.core.params import load_yaml
from tasks.core.training import sync_batch_norm
from tasks.core.training.distributed import ProcessGroup
from tasks.core.training.step import TrainableNetwork
from tasks.core.training.strategy import Strategy
from tasks.core.training.sync_batch_norm import SynchronizedBatchNorm, by_hand
from tasks.core.training.torchrun import run_torchrun
from tasks.core.training.train_model import atomic_folder, skip
from tasks.core.training.trainer import Trainer

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
PROCESS = ROOT / "tests" / "train_process.py"


@pytest.fixture
def alone_in_a_group():
    """A process group of this process, so that its messages can be sent."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("alone_in_a_group")
@pytest.mark.parametrize("shape", [(5, 4), (3, 4, 6, 6)])
@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_by_hand_is_torchs_own(shape, affine):
    torch.manual_seed(0)
    outcomes = []
    for norm in (by_hand, plain):
        x = (torch.arange(float(np.prod(shape))).reshape(shape).sin() * 3 + 1).requires_grad_()
        scales = [torch.linspace(0.5, 2, 4).requires_grad_() for _ in range(2)]
        kept = torch.zeros(4), torch.ones(4)
        y = norm(x, kept, scales if affine else (None, None), 0.1, 1e-5)
        (y * torch.linspace(-1, 1, y.numel()).reshape(shape)).sum().backward()
        gradients = [x.grad, *(scale.grad for scale in scales if affine)]
        outcomes.append([y.detach(), *kept, *gradients])
    for mine, torchs in zip(*outcomes, strict=True):
        assert torch.allclose(mine, torchs, atol=1e-5)


def plain(x, kept, scales, momentum, eps):
    return functional.batch_norm(x, *kept, *scales, True, momentum, eps)


def test_on_cuda_torchs_layer_works_on_the_networks_own_tensors():
    """Without a process group `SyncBatchNorm` is plain batch normalization, on any device."""
    x = torch.randn(6, 4, 3, 3)
    weight, bias = torch.rand(4, requires_grad=True), torch.rand(4, requires_grad=True)
    kept, expected = (torch.zeros(4), torch.ones(4)), (torch.zeros(4), torch.ones(4))
    y = SynchronizedBatchNorm().by_torch(x, kept, (weight, bias), 0.1, 1e-5)
    assert torch.allclose(y, plain(x, expected, (weight, bias), 0.1, 1e-5), atol=1e-6)
    assert torch.allclose(kept[0], expected[0])
    assert torch.allclose(kept[1], expected[1])
    y.square().sum().backward()
    assert weight.grad is not None
    assert weight.grad.abs().sum() > 0


def test_layers_that_inherit_from_batch_norm_are_answered_too(monkeypatch):
    from timm.layers import BatchNormAct2d

    asked = []

    def answer(x, *rest):
        asked.append(tuple(x.shape))
        return x

    monkeypatch.setattr(sync_batch_norm, "by_hand", answer)
    network = nn.Sequential(BatchNormAct2d(3), nn.BatchNorm2d(3))
    x = torch.linspace(-1, 1, 24).reshape(2, 3, 2, 2)
    with SynchronizedBatchNorm():
        y = network.train()(x)
    assert asked == [(2, 3, 2, 2)] * 2
    assert torch.equal(y, x.relu())  # what the first does beside is done
    with SynchronizedBatchNorm():
        network.eval()(x)
    assert len(asked) == 2


def test_parts_of_a_batch_are_all_of_it():
    rows = np.arange(11)
    parts = [ProcessGroup(rank, 3, CPU).part(rows) for rank in range(3)]
    assert np.array_equal(np.concatenate(parts), rows)
    assert {len(part) for part in parts} == {3, 4}


def test_only_the_first_process_writes(cohort, monkeypatch):
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(process.PartDone), atomic_folder(cohort.model("base")) as fresh:
        fresh.mkdir(parents=True)
    with pytest.raises(process.PartDone):
        skip(cohort, "naive", Skipped("why", ("anger",)))
    assert not cohort.model("base").parent.exists()
    monkeypatch.setenv("RANK", "0")
    skip(cohort, "naive", Skipped("why", ("anger",)))
    assert cohort.model("naive").exists()


@pytest.fixture
def trainer_of_two(images_of, train_params, alone_in_a_group):
    """The first of two processes, with a batch of 24 pictures, and these pictures."""
    rng = np.random.default_rng(0)
    images = images_of(rng.integers(0, 255, (24, 32, 32, 3), dtype=np.uint8), np.arange(24) % 3)
    spec = ModelSpec(
        architecture="compact",
        labels=("anger", "fear", "neutral"),
        input_size_px=32,
        color="rgb",
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        version="",
        source="",
    )

    def make(**changed):
        params = train_params(backbone="compact", **{"batch_size": 24, **changed})
        network = build_module("compact", 3, 3, 32)
        return Trainer(network, spec, params, Strategy(), images, ProcessGroup(0, 2, CPU)), images

    return make


def test_processes_find_out_before_the_first_step_how_much_fits(trainer_of_two, monkeypatch):
    trainer, images = trainer_of_two()
    before, real, tried = trainer.weights(), TrainableNetwork.logits, []

    def logits(network, pixels):
        tried.append(len(pixels))
        if len(pixels) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(network, pixels)

    monkeypatch.setattr(TrainableNetwork, "logits", logits)
    said = trainer.find_pieces(images)
    assert tried == [12, 6, 3]  # twelve of a batch are this process's
    assert trainer.pieces == 4
    assert "a batch of 24 is now split into parts of at most 3 pictures" in said
    assert all(torch.equal(before[name], tensor) for name, tensor in trainer.weights().items())
    assert all(weight.grad is None for weight in trainer.module.parameters())


def test_memory_that_one_of_several_processes_lacks_later_is_one_line(trainer_of_two):
    trainer, _ = trainer_of_two()
    with pytest.raises(ModelError, match="out of memory in process 1 of 2") as error:
        trainer.mend(torch.OutOfMemoryError("CUDA out of memory"))
    assert "\n" not in str(error.value)


def test_processes_without_a_image_each_are_refused(trainer_of_two, monkeypatch):
    monkeypatch.setattr(Trainer, "smallest_batch", 1)
    with pytest.raises(ModelError, match="2 processes cannot share a batch of 1"):
        trainer_of_two()


def test_options_that_torchrun_does_not_know_are_one_line(capsys):
    for options in ("--processes 2", "--nproc-per-node many"):
        with pytest.raises(UserError, match="torchrun cannot read") as error:
            run_torchrun(options, ["train"])
        assert "\n" not in str(error.value)


def environment(**more: str) -> dict[str, str]:
    fixed = {"OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": "1"}
    return {**os.environ, **fixed, "PYTHONPATH": str(ROOT), **more}


def train(folder: Path, n_processes: int, kill_after: int = 0) -> int:
    """Train in a copy of the cohort and return the exit code."""
    command = [str(PROCESS), str(folder), str(folder / "params.json"), str(kill_after)]
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", str(n_processes)]
    done = subprocess.run(
        [sys.executable, *(torchrun if n_processes > 1 else []), *command],
        env=environment(),
        capture_output=True,
        check=False,
    )
    return done.returncode


def history(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "models" / "base" / "history.csv")


@pytest.mark.slow
def test_two_processes_train_as_one_and_go_on_for_each_other(cohort, train_params, tmp_path):
    """The same loss curve to 1e-4, with batch normalization, whoever trains which epoch."""
    # Slowly enough that rounding does not grow: two threads differ from one as much.
    how = {"epochs": 3, "batch_size": 12, "learning_rate": 0.0003, "subset": {}}
    params = train_params(**how, backbone="compact")
    (cohort.root / "params.json").write_text(params.model_dump_json())
    ways = {"one": [(1, 0)], "two": [(2, 0)], "two then one": [(2, 1), (1, 0)]}
    ways["one then two"] = [(1, 1), (2, 0)]
    curves = {}
    for way, calls in ways.items():
        folder = tmp_path / "copies" / way
        shutil.copytree(cohort.root, folder, ignore=shutil.ignore_patterns("copies"))
        for n_processes, kill_after in calls:
            code = train(folder, n_processes, kill_after)
            assert (code == 0) == (kill_after == 0)
            assert (folder / "models" / "base").exists() == (kill_after == 0)
        curves[way] = history(folder)
    for way, curve in curves.items():
        assert list(curve["epoch"]) == [1, 2, 3]
        assert np.allclose(curve, curves["one"], rtol=0, atol=1e-4), way


@pytest.mark.slow
def test_the_stage_starts_itself_under_torchrun_and_leaves_one_run(cohort, train_params):
    (cohort.root / "tasks").symlink_to(ROOT / "tasks")
    shutil.copyfile(ROOT / "dvc.yaml", cohort.root / "dvc.yaml")
    content = load_yaml(ROOT / "params.yaml")

    def run(**changed: object) -> subprocess.CompletedProcess[str]:
        section = train_params(epochs=1, **changed).model_dump(mode="json")
        (cohort.root / "params.yaml").write_text(yaml.safe_dump({**content, "train": section}))
        return subprocess.run(
            [sys.executable, "-m", "tasks", "train"],
            cwd=cohort.root,
            env=environment(AFFECTGAP_TORCHRUN="--nproc-per-node 2"),
            capture_output=True,
            text=True,
            check=False,
        )

    done = run()
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("train: lenet5 on 18 pictures an epoch")
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""
    client = mlflow.MlflowClient(f"sqlite:///{cohort.root}/mlruns/mlflow.db")
    experiment = client.get_experiment_by_name("affectgap")
    runs = client.search_runs([experiment.experiment_id])
    assert [entry.info.status for entry in runs] == ["FINISHED"]
    assert (cohort.root / "data/runs/train.json").is_file()

    wrong = run(subset={"age_band": ["infant"]})
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: train.subset")
    assert wrong.stderr.count("\n") == 1
