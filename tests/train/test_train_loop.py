"""The loop under stress: too little memory, losses that are no numbers, stops and restarts."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tasks.core.errors import ModelError
from tasks.core.files import sha256_of
from tasks.core.models.backbones import build_module
from tasks.core.models.spec import ModelSpec
from tasks.core.training import distributed, step, trainer, training_state
from tasks.core.training import fit as fit_module
from tasks.core.training.data.dataset import ImageDataset
from tasks.core.training.fit import FitResult, fit
from tasks.core.training.out_of_memory import is_out_of_memory, predict_with_oom_backoff
from tasks.core.training.strategy import Strategy
from tasks.core.training.trainer import LossAccumulator

ROOT = Path(__file__).parents[2]
NO_ROOM = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you "
    "tried to allocate 4000000000000000 bytes. Error code 12 (Cannot allocate memory)"
)


@pytest.fixture
def images(images_of) -> ImageDataset:
    """Twenty-four pictures of three labels, each with its own bright stripe."""
    rng = np.random.default_rng(0)
    targets = np.arange(24) % 3
    pixels = rng.integers(60, 120, (24, 32, 32, 3), dtype=np.uint8)
    for pixel, target in zip(pixels, targets, strict=True):
        pixel[4 + 9 * target : 10 + 9 * target] = 230
    return images_of(pixels, targets)


@pytest.fixture
def fitted(images, train_params, tmp_path) -> Callable[..., FitResult]:
    """Fit a network to the pictures; `work` is the folder for progress."""

    def make(work: str = "work", until: int | None = None, **changed: object) -> FitResult:
        params = train_params(**{"epochs": 2, "batch_size": 8, **changed})
        torch.manual_seed(0)
        module = build_module(params.backbone, 3, 3, 32)
        spec = ModelSpec(
            architecture=params.backbone,
            labels=("anger", "fear", "neutral"),
            input_size_px=32,
            color="rgb",
            mean=(0.5,) * 3,
            std=(0.25,) * 3,
            version="",
            source="",
        )
        how = (params, Strategy(), tmp_path / work, False)
        return fit(module, spec, images, images, *how, until=until)

    return make


def bits(fitted: FitResult) -> bytes:
    return b"".join(tensor.numpy().tobytes() for tensor in fitted.module.state_dict().values())


def close(one: FitResult, other: FitResult) -> bool:
    pairs = zip(one.module.parameters(), other.module.parameters(), strict=True)
    return all(torch.allclose(a, b, atol=1e-5) for a, b in pairs)


def fail_above(n_images: int, monkeypatch, error: Exception = NO_ROOM) -> list[int]:
    """Let memory hold so many pictures in training and no more; returns what was tried."""
    tried: list[int] = []
    real = step.TrainableNetwork.train_logits

    def train_logits(network, pixels, changes):
        tried.append(len(pixels))
        if len(pixels) > n_images:
            raise error
        return real(network, pixels, changes)

    monkeypatch.setattr(step.TrainableNetwork, "train_logits", train_logits)
    return tried


def test_pieces_give_the_gradients_of_the_whole_batch(fitted, monkeypatch, capsys):
    whole = fitted("whole", backbone="lenet5")  # without batch normalization
    tried = fail_above(2, monkeypatch)
    pieces = fitted("pieces", backbone="lenet5")
    assert tried[:3] == [8, 4, 2]  # then two pictures at a time, to the end
    assert set(tried[3:]) == {2}
    assert (whole.pieces, pieces.pieces) == (1, 4)
    assert close(whole, pieces)
    assert np.allclose(whole.history, pieces.history, atol=1e-5)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert len(said) == 2
    assert "a batch of 8 is now split into parts of at most 2 pictures" in said[1]


def test_the_epoch_in_which_memory_ran_out_is_trained_from_its_start(fitted, monkeypatch):
    """Later steps of an epoch may need more than the first: nothing of the attempt may stay."""
    fitted("at once", backbone="compact", until=1)
    tried = fail_above(4, monkeypatch)
    at_once = fitted("at once", backbone="compact")
    assert tried == [8, *[4] * 6]
    monkeypatch.undo()

    real, sizes = step.TrainableNetwork.train_logits, []

    def fail_in_the_fifth_step(network, pixels, changes):
        sizes.append(len(pixels))
        if len(sizes) == 5:
            raise NO_ROOM
        return real(network, pixels, changes)

    monkeypatch.setattr(step.TrainableNetwork, "train_logits", fail_in_the_fifth_step)
    later = fitted("later", backbone="compact")
    assert sizes == [*[8] * 5, *[4] * 6]  # three steps an epoch; the second begins anew
    assert bits(later) == bits(at_once)


def test_no_room_for_one_image_is_one_line(fitted, monkeypatch, capsys):
    fail_above(0, monkeypatch)
    with pytest.raises(ModelError, match="out of memory with one picture at a time") as error:
        fitted(backbone="lenet5")
    assert "\n" not in str(error.value)


def test_pieces_are_remembered_when_a_training_goes_on(fitted, monkeypatch):
    tried = fail_above(4, monkeypatch)
    fitted(backbone="lenet5", until=1)
    tried.clear()
    assert fitted(backbone="lenet5").pieces == 2
    assert set(tried) == {4}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (NO_ROOM, True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("shape '[2]' is invalid for input of size 3"), False),
        (ModelError("out of memory"), False),
    ],
)
def test_which_errors_mean_that_memory_is_too_small(error, expected):
    assert is_out_of_memory(error) is expected


def test_torch_still_says_it_so():
    with pytest.raises(RuntimeError) as error:
        torch.empty(10**15)
    assert is_out_of_memory(error.value)


def test_other_errors_are_not_taken_for_memory(fitted, monkeypatch):
    fail_above(0, monkeypatch, RuntimeError("a fault"))
    with pytest.raises(RuntimeError, match="a fault"):
        fitted(backbone="lenet5")


def test_a_loss_that_is_no_number_names_epoch_and_step(fitted, monkeypatch, tmp_path):
    real, n_steps = step.train_step, []

    def train_step(*arguments):
        n_steps.append(1)
        loss = real(*arguments)
        return loss * float("nan") if len(n_steps) == 5 else loss

    monkeypatch.setattr(trainer, "train_step", train_step)
    with pytest.raises(ModelError, match=r"epoch 2 at step 2 of 3 .*below 0\.001$") as error:
        fitted(backbone="lenet5")
    assert "\n" not in str(error.value)
    assert len(n_steps) == 5  # and stops there
    monkeypatch.undo()
    goes_on = fitted(backbone="lenet5")  # the first epoch is kept
    assert list(goes_on.history["epoch"]) == [1, 2]


def test_losses_that_are_looked_at_seldom_still_name_the_first_bad_step(monkeypatch):
    watch = LossAccumulator(
        distributed.ProcessGroup(0, 1, torch.device("cpu")), epoch=3, n_steps=9, learning_rate=0.1
    )
    watch._every = 50
    for loss in (1.0, 2.0, float("inf"), float("nan")):
        watch.add(torch.tensor(loss))
    with pytest.raises(ModelError, match="epoch 3 at step 3 of 9"):
        watch.mean(4)


def test_until_stops_and_a_later_call_goes_on_to_the_same_bits(fitted):
    whole = fitted("whole", backbone="compact", epochs=4)
    first = fitted("parts", backbone="compact", epochs=4, until=2)
    assert list(first.history["epoch"]) == [1, 2]
    assert first.seconds > 0
    second = fitted("parts", backbone="compact", epochs=4)
    assert bits(second) == bits(whole) != bits(first)
    assert second.history.equals(whole.history)
    assert second.seconds > first.seconds
    assert second.images_per_second == pytest.approx(4 * 24 / second.seconds)


def test_progress_that_is_too_far_is_not_used(fitted):
    first = fitted("fresh", backbone="lenet5", epochs=3, until=1)
    fitted("used", backbone="lenet5", epochs=3)
    assert bits(fitted("used", backbone="lenet5", epochs=3, until=1)) == bits(first)


def test_what_is_found_is_what_the_kept_weights_say(fitted, images, monkeypatch):
    """Also where the kept epoch was validated by an earlier call."""
    recalls = iter([0.9, 0.1, 0.2, 0.3])
    real, found = trainer.Trainer.validate, []

    def validate(own, shown):
        outcome = real(own, shown)
        found.append(outcome.found)
        return trainer.ValidationResult(1.0, next(recalls), outcome.accuracy, outcome.found)

    monkeypatch.setattr(trainer.Trainer, "validate", validate)
    how = {"backbone": "compact", "learning_rate": 0.01, "schedule": "constant", "epochs": 3}
    fitted(until=1, **how)
    later = fitted(**how)
    assert later.best_epoch == 1
    assert np.array_equal(later.found, found[0])
    assert not np.array_equal(found[0], found[2])


def test_progress_of_other_code_is_not_gone_on_from(fitted, monkeypatch):
    saved = []
    real = training_state.save_progress
    monkeypatch.setattr(
        fit_module, "save_progress", lambda *a: (saved.append(a[1].epoch), real(*a))
    )
    fitted("work", backbone="lenet5", epochs=2, until=1)
    fitted("work", backbone="lenet5", epochs=2, until=1)
    assert saved == [1]  # the same code has nothing left to do
    monkeypatch.setattr(fit_module, "_code_digest", lambda: "edited")
    fitted("work", backbone="lenet5", epochs=2, until=1)
    assert saved == [1, 1]


def test_keep_best_accuracy_goes_by_accuracy_and_not_by_recall(fitted, monkeypatch, validated):
    scores = iter([(0.9, 0.5), (0.8, 0.7), (0.7, 0.6)])

    def validate(*_):
        recall, accuracy = next(scores)
        return replace(validated(recall), accuracy=accuracy)

    monkeypatch.setattr(trainer.Trainer, "validate", validate)
    assert fitted(backbone="lenet5", epochs=3, checkpoint="best_accuracy").best_epoch == 2


def test_asking_about_images_goes_on_with_fewer_at_once_and_says_so(capsys):
    asked = []

    def ask(rows):
        asked.append(len(rows))
        if len(rows) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return rows.sum()

    device = torch.device("cpu")
    answers = list(predict_with_oom_backoff(ask, np.arange(8), 8, device))
    assert asked == [8, 4, 2, 2, 2, 2]
    assert [(list(rows), int(total)) for rows, total in answers][-1] == ([6, 7], 13)
    assert "the batch size is now 2 pictures" in capsys.readouterr().out
    with pytest.raises(ModelError, match="one picture at a time"):
        list(predict_with_oom_backoff(lambda rows: ask(np.arange(9)), np.arange(8), 8, device))


def test_keep_last_keeps_the_last_epoch_whatever_it_is_like(fitted, monkeypatch, validated):
    recalls = iter([0.9, 0.5, 0.1])
    monkeypatch.setattr(trainer.Trainer, "validate", lambda *_: validated(next(recalls)))
    assert fitted(backbone="lenet5", epochs=3, checkpoint="last").best_epoch == 3


def test_accuracy_and_loss_of_validation_are_over_all_images(fitted, images):
    done = fitted(backbone="compact", epochs=3, loss={"name": "mse", "smoothing": 0, "beta": 0})
    row = done.history.set_index("epoch").loc[done.best_epoch]
    assert row["valid_accuracy_score"] == (done.found == images.targets).mean()
    assert 0 < row["valid_loss"] < 1  # the squares' mean, no cross-entropy


def test_compiled_networks_keep_their_names_and_a_failing_compiler_is_one_line(
    fitted, monkeypatch, capsys
):
    from torch._dynamo.exc import BackendCompilerFailed

    passes = []

    def compiled(module):
        def forward(x):
            passes.append(len(x))
            return module(x)

        return forward

    monkeypatch.setattr(torch, "compile", compiled)
    plain = fitted("never", backbone="lenet5", compile="never")
    fitted("auto", backbone="lenet5", compile="auto")  # on a CPU: no
    assert not passes
    always = fitted("always", backbone="lenet5", compile="always")
    assert passes == [8] * 6
    assert list(always.module.state_dict()) == list(plain.module.state_dict())
    assert close(always, plain)

    def broken(module):
        def forward(x):
            raise BackendCompilerFailed(lambda: None, RuntimeError("no compiler here"), None)

        return forward

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(ModelError, match=r"torch\.compile cannot .*set compile: never") as error:
        fitted("broken", backbone="lenet5", compile="always")
    assert "\n" not in str(error.value)
    monkeypatch.setattr(trainer, "should_compile", lambda *_: True)
    without = fitted("without", backbone="lenet5", compile="auto")
    assert "training continues without it" in capsys.readouterr().out
    assert bits(without) == bits(plain)


TRAIN = """
import json, sys, time
from pathlib import Path
from tasks.core.paths import Paths
from tasks.core.training import trainer
from tasks.train import stage

def train_step(*arguments):
    steps.append(1)
    if len(steps) == stop_at:
        print("in the middle", flush=True)
        time.sleep(600)
    return real(*arguments)

root, params, stop_at = Path(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3])
real, steps = trainer.train_step, []
trainer.train_step = train_step
stage.run(stage.Params.model_validate(params), Paths(root))
"""


@pytest.mark.slow
def test_training_killed_in_the_middle_of_an_epoch_ends_with_the_same_bits(cohort, train_params):
    # Batch normalization, drop-out and an optimizer with a memory: all must come back.
    how = {"backbone": "mobilenet_v3_small", "optimizer": {"name": "ranger", "momentum": 0.9}}
    params = train_params(epochs=4, **how)

    def command(stop_at: int) -> list[str]:
        text = params.model_dump_json()
        return [sys.executable, "-c", TRAIN, str(cohort.root), text, str(stop_at)]

    def outcome() -> tuple[str, bytes]:
        folder = cohort.model("base")
        return sha256_of(folder / "model.safetensors"), (folder / "history.csv").read_bytes()

    subprocess.run(command(0), cwd=ROOT, check=True)
    undisturbed = outcome()
    for stop_at in (4, 2):  # two steps an epoch: in the second, then in the third (or second)
        process = subprocess.Popen(command(stop_at), cwd=ROOT, stdout=subprocess.PIPE)
        assert process.stdout and process.stdout.readline() == b"in the middle\n"
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    progress = list(cohort.at("work/train").glob("*/progress.safetensors"))
    assert len(progress) == 1
    subprocess.run(command(0), cwd=ROOT, check=True)
    assert outcome() == undisturbed


@pytest.mark.slow
def test_a_machine_with_too_little_memory_trains_in_pieces(cohort, train_params):
    """The real thing: a process may take only a share of what the batch took when it was free to.

    How little is too little for a batch and enough for a piece depends on the machine, so several
    shares are tried; with each the training ends, or says in one line that it cannot. Native
    libraries that do not check what they are given can end the process first: such a share shows
    nothing about this code, and the next is tried.
    """
    code = """
import json, os, re, resource, sys
from pathlib import Path
from tasks.core.paths import Paths
from tasks.core.training import trainer
from tasks.train import stage

trainer.retain_freed_memory = lambda: False  # what is freed is given back, so that the limit counts
root, share = Path(sys.argv[1]), float(sys.argv[2])
small, large = (stage.Params.model_validate(json.loads(text)) for text in sys.argv[3:])
stage.run(small, Paths(root))
stage.run(large, Paths(root))  # threads and the code for these shapes are there from now on
sizes = re.findall(r"Vm(?:Peak|Size):\\s*(\\d+) kB", Path("/proc/self/status").read_text())
most, taken = (int(size) * 2**10 for size in sizes)
resource.setrlimit(resource.RLIMIT_AS, (int(taken + share * (most - taken)),) * 2)
print("limited", flush=True)
again = large.model_copy(update={"seed": large.seed + 1})
print(stage.run(again, Paths(root)).metrics)
"""
    how = {"epochs": 1, "backbone": "compact", "subset": {}, "input_size_px": 224}
    texts = [train_params(**how, batch_size=size).model_dump_json() for size in (4, 36)]
    environment = {
        **os.environ,
        "MALLOC_ARENA_MAX": "2",
        "MALLOC_MMAP_THRESHOLD_": str(2**20),  # what is freed is given back at once
        "OMP_NUM_THREADS": "2",
    }
    said = []
    for share in ("0.8", "0.7", "0.9", "0.6", "0.5"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(cohort.root), share, *texts],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        said.append(f"{share}: {done.returncode}\n{done.stdout}{done.stderr}")
        before, _, after = done.stdout.partition("limited\n")
        assert after or done.returncode, said[-1]
        if done.returncode in (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS):
            continue
        assert done.returncode == 0 or "ModelError: out of memory with one picture" in done.stderr
        if done.returncode == 0 and "note: out of memory: a batch of 36 is now split" in after:
            assert "out of memory" not in before
            return
    pytest.fail("no amount of memory led to pieces:\n" + "\n".join(said))
