"""The same bytes from a Dask cluster as from this machine, also when a worker is killed."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch
from distributed import Security
from explain_world import params as explain_params

from tasks.core.errors import UserError
from tasks.core.models.backbones import build_module
from tasks.core.models.checkpoint import empty_seen_table, save_model
from tasks.core.models.spec import ModelSpec
from tasks.core.parallel import dask_executor
from tasks.core.parallel.execution import CLUSTER_VARIABLE, map_in_order, process_pool
from tasks.core.parallel.process import die_with_parent
from tasks.core.params import load_section
from tasks.core.paths import Paths
from tasks.core.tables import MANIFEST_SCHEMA, read_table, write_table
from tasks.crop import crop_cache
from tasks.crop import stage as crop
from tasks.draw.action_units import Style
from tasks.draw.plan import plan_images
from tasks.draw.render import RenderJob, draw_images
from tasks.evaluate import batch_prediction
from tasks.evaluate import stage as evaluate
from tasks.explain import parallel_explain
from tasks.explain import stage as explain

ROOT = Path(__file__).resolve().parents[2]
LABELS = ("happiness", "neutral", "fear")
IMAGES = 24


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Cluster:
    """A scheduler and workers on this machine, which `dask` starts as processes of their own."""

    def __init__(self, logs: Path) -> None:
        self.address = f"tcp://127.0.0.1:{free_port()}"
        self._logs, self.workers = logs, []
        port = self.address.rpartition(":")[2]
        self._scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", port)

    def add_worker(self) -> None:
        local = ["--local-directory", str(self._logs)]
        options = ["--nthreads", "1", "--no-nanny", "--host", "127.0.0.1", *local]
        self.workers.append(self._start("worker", self.address, *options))

    def kill_worker(self) -> None:
        """Kill one worker that lives, and start another in its place."""
        victim = next(worker for worker in self.workers if worker.poll() is None)
        victim.kill()
        victim.wait()
        self.add_worker()

    def stop(self) -> None:
        for process in (*self.workers, self._scheduler):
            process.kill()
            process.wait()

    def _start(self, kind: str, *options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", "--no-dashboard"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        environment.pop(CLUSTER_VARIABLE, None)
        with (self._logs / f"{kind}{len(self.workers)}.log").open("wb") as log:
            return subprocess.Popen(
                [*command, *options],
                env=environment,
                cwd=self._logs,
                stdout=log,
                stderr=log,
                preexec_fn=partial(die_with_parent, os.getpid()),
            )


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[Cluster]:
    found = Cluster(tmp_path_factory.mktemp("dask"))
    try:
        for _ in range(2):
            found.add_worker()
        yield found
    finally:
        found.stop()


def make_project(root: Path) -> Paths:
    """Drawn pictures of one person an emotion, a checked table, and a model without training."""
    paths = Paths(root)
    paths.drawn.mkdir(parents=True)
    style = Style(intensity_mean=0.8, intensity_sd=0.1, unit_mixing=0.0)
    sittings = plan_images({"adult": 4}, LABELS, IMAGES // (4 * len(LABELS)))
    rows = []
    for drawn in draw_images([RenderJob(sitting, style, 1, 160) for sitting in sittings]):
        name = drawn.sitting.name
        (paths.drawn / name.file_name).write_bytes(drawn.jpeg)
        row = {"image_id": name.stem, "path": f"drawn/{name.file_name}", "dataset": "drawn"}
        labels = {"emotion": name.emotion, "age_band": "adult", "gender": name.gender}
        known = {"subject_id": f"drawn/{name.subject}", "subject_known": True, "warnings": ""}
        rows.append({**row, **labels, **known, "width_px": 160, "height_px": 160})
    table = pd.DataFrame(rows).reindex(columns=[*MANIFEST_SCHEMA.names, "warnings"])
    write_table(table, paths.checked, MANIFEST_SCHEMA)
    torch.manual_seed(0)
    spec = ModelSpec(
        architecture="compact",
        labels=LABELS,
        input_size_px=64,
        color="rgb",
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        version="",
        source="test",
    )
    save_model(paths.model("base"), build_module("compact", 3, 3), spec, empty_seen_table())
    return paths


def run_stages(paths: Paths) -> dict[str, bytes]:
    """Crop, evaluate and explain; return what they wrote."""
    settings = load_section(ROOT / "params.yaml", "crop", crop.Params)
    crop.run(settings.model_copy(update={"size_px": 96, "workers": 1}), paths)
    write_table(read_table(paths.crops).assign(split="test"), paths.split)
    evaluate.run(evaluate.Params(batch_size=4, device="cpu"), paths, "base")
    predictions = read_table(paths.predictions("base"))
    right = predictions.assign(y_pred=predictions["emotion"])
    write_table(right, paths.predictions("base"))  # so that all are explained
    explain.run(explain_params(samples=60, images_per_group=9, by=["gender"]), paths, "base")
    files = [*paths.at("data").glob("c*/*"), *paths.at("data").glob("[cpe]*/*.parquet")]
    files += [paths.crops, paths.figures / "lime_base.png", predictions_file(paths, predictions)]
    return {str(path.relative_to(paths.root)): path.read_bytes() for path in sorted(set(files))}


def predictions_file(paths: Paths, predictions: pd.DataFrame) -> Path:
    path = paths.at("data/asked.parquet")
    write_table(predictions, path)
    return path


@pytest.mark.long
def test_a_cluster_that_loses_workers_writes_the_same_bytes(running, tmp_path, monkeypatch):
    here = make_project(tmp_path / "here")
    expected = run_stages(here)
    assert len(read_table(here.explanations("base"))["image_id"].unique()) == IMAGES
    there = Paths(tmp_path / "there")
    shutil.copytree(here.raw, there.raw)
    shutil.copytree(here.model("base"), there.model("base"))
    shutil.copy(here.checked, there.checked)
    killed = []

    def kill_half_way(items, total, what):
        for number, item in enumerate(items):
            if number == total // 3:
                running.kill_worker()
                killed.append(what)
            yield item

    for module in (crop, batch_prediction, explain):
        monkeypatch.setattr(module, "track", kill_half_way)
    for module in (crop_cache, parallel_explain):
        monkeypatch.setattr(module, "_FEW", 0)
    monkeypatch.setenv(CLUSTER_VARIABLE, running.address)
    written = run_stages(there)
    assert killed == ["crop", "evaluate", "explain base"]
    assert written.keys() == expected.keys()
    assert [name for name in expected if written[name] != expected[name]] == []


@pytest.mark.long
def test_items_are_taken_lazily(running, monkeypatch):
    monkeypatch.setenv(CLUSTER_VARIABLE, running.address)
    taken = []

    def numbers() -> Iterator[int]:
        for number in range(500):
            taken.append(number)
            yield number

    with process_pool(1) as pool:
        results = map_in_order(sorted, numbers(), pool, 2)
        assert next(results) == 0
        assert len(taken) <= 2 * 3 * len(running.workers)
        assert list(results) == list(range(1, 500))


def only_here(numbers: list[int]) -> list[int]:
    return numbers


@pytest.mark.long
def test_code_that_the_cluster_cannot_find_is_one_line(running, monkeypatch):
    monkeypatch.setenv(CLUSTER_VARIABLE, running.address)
    with process_pool(1) as pool, pytest.raises(UserError, match="find the code") as caught:
        list(map_in_order(only_here, range(4), pool, 2))
    assert "\n" not in str(caught.value)


@pytest.mark.long
def test_workers_with_other_code_are_refused(running, monkeypatch):
    monkeypatch.setenv(CLUSTER_VARIABLE, running.address)
    monkeypatch.setattr(dask_executor, "digest_of_code", lambda: "of another commit")
    with process_pool(1) as pool, pytest.raises(UserError, match="other code") as caught:
        list(map_in_order(sorted, range(4), pool, 2))
    assert "\n" not in str(caught.value)


class EndsLate(Future[str]):
    """A call that ends just as the waiting for it does."""

    def result(self, timeout: float | None = None) -> str:
        if self.done():
            return super().result(timeout)
        self.set_result("done")
        raise TimeoutError


def test_a_call_that_ends_as_the_waiting_does_is_not_lost(monkeypatch):
    monkeypatch.setattr(dask_executor.Cluster, "__init__", lambda _: None)
    monkeypatch.setattr(dask_executor.Cluster, "_require_workers", lambda _: None)
    monkeypatch.setattr(dask_executor.Cluster, "_killed", OSError, raising=False)
    waiting = dask_executor.Cluster()
    assert waiting.wait_for(EndsLate()) == "done"
    own = Future[str]()
    own.set_exception(TimeoutError("the call's own"))
    with pytest.raises(TimeoutError, match="own"):
        waiting.wait_for(own)


def test_no_scheduler_is_one_line(monkeypatch):
    monkeypatch.setenv(CLUSTER_VARIABLE, f"tcp://127.0.0.1:{free_port()}")
    monkeypatch.setattr(dask_executor, "_ANSWER_S", 0.5)
    with pytest.raises(UserError, match="no scheduler") as caught, process_pool(1):
        pass
    assert "\n" not in str(caught.value)


def test_a_mistyped_address_is_one_line(monkeypatch):
    monkeypatch.setenv(CLUSTER_VARIABLE, "no address")
    monkeypatch.setattr(dask_executor, "_ANSWER_S", 0.5)
    with pytest.raises(UserError, match="AFFECTGAP_DASK"), process_pool(1):
        pass


@pytest.mark.parametrize("address", ["tcp://10.1.2.3:8786", "gpu-1:8786", "tcp://[fe80::1]:8786"])
def test_a_scheduler_elsewhere_is_not_spoken_to_in_plaintext(address, monkeypatch):
    """Whoever is between the machines could answer with a pickle of their own."""
    monkeypatch.delenv(dask_executor.PLAINTEXT_VARIABLE, raising=False)
    with pytest.raises(UserError, match=r"is another machine and not encrypted: .* use tls://"):
        dask_executor.Cluster(address)
    monkeypatch.setenv(dask_executor.PLAINTEXT_VARIABLE, "allowed")
    dask_executor.require_encryption(address)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "tcp://[::1]:9", "localhost:9"])
def test_this_machine_and_tls_are_spoken_to(address, monkeypatch):
    monkeypatch.delenv(dask_executor.PLAINTEXT_VARIABLE, raising=False)
    dask_executor.require_encryption(address)
    dask_executor.require_encryption("tls://10.1.2.3:8786")


def test_tls_without_certificates_names_the_settings():
    with pytest.raises(UserError, match="DASK_DISTRIBUTED__COMM__TLS__CA_FILE"):
        dask_executor.Cluster("tls://127.0.0.1:9")


@pytest.mark.slow
def test_with_tls_only_who_has_a_certificate_reaches_the_scheduler(tmp_path):
    """Dask's own settings, from the environment, for scheduler, worker and this project."""
    temporary = Security.temporary()
    own = {"CA_FILE": temporary.tls_ca_file}
    for role in ("SCHEDULER", "WORKER", "CLIENT"):
        own[f"{role}__CERT"], own[f"{role}__KEY"] = (
            temporary.tls_client_cert,
            temporary.tls_client_key,
        )
    settings = {"DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "true"}
    for name, text in own.items():
        (tmp_path / name).write_text(text)
        settings[f"DASK_DISTRIBUTED__COMM__TLS__{name}"] = str(tmp_path / name)
    port = free_port()
    address = f"tls://127.0.0.1:{port}"
    call = (
        "from tasks.core.parallel.dask_executor import Cluster, digest_of_code;"
        f"cluster = Cluster({address!r});"
        "print(len(cluster.submit(digest_of_code).result())); cluster.shutdown(wait=False)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **settings}
    started = []
    try:
        for kind, options in (
            ("scheduler", ["--host", "127.0.0.1", "--port", str(port), "--protocol", "tls"]),
            ("worker", [address, "--nthreads", "1", "--no-nanny", "--host", "tls://127.0.0.1"]),
        ):
            command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", "--no-dashboard"]
            with (tmp_path / kind).open("wb") as log:
                started.append(
                    subprocess.Popen(
                        [*command, *options], env=environment, cwd=tmp_path, stdout=log, stderr=log
                    )
                )
        command = [sys.executable, "-c", call]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.stdout == "64\n", done.stderr + (tmp_path / "scheduler").read_text()
        stranger = {**os.environ, "PYTHONPATH": str(ROOT)}
        plain = call.replace("tls://", "tcp://")
        refused = subprocess.run(
            [sys.executable, "-c", plain], env=stranger, capture_output=True, text=True
        )
        assert refused.returncode != 0 and "no scheduler answers" in refused.stderr
    finally:
        for process in started:
            process.kill()
            process.wait()
