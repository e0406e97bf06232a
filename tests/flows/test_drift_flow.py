"""Advice on a batch, from pictures on disk: before any model, and with one in use."""

import json
from dataclasses import asdict
from datetime import UTC, datetime

import pandas as pd
import pytest
import torch
import yaml
from batches import draw_batch, mark_ready

from flows.drift.batch_drift import write_drift_report
from flows.ledger.ledger import Arrival, Ledger
from tasks.core.errors import UserError
from tasks.core.labels import DRAWN_NOTICE
from tasks.core.models.backbones import build_module
from tasks.core.models.checkpoint import empty_seen_table, save_model
from tasks.core.models.spec import ModelSpec
from tasks.core.paths import Paths
from tasks.core.tables import MANIFEST_SCHEMA, write_table
from tasks.crop.settings import CropSettings
from tasks.register import registry
from tasks.register.versions import Version

EMOTIONS = ("anger", "happiness", "neutral")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Three children who came in a batch; nothing else is known yet."""
    with open("params.yaml", encoding="utf-8") as handle:
        params = yaml.safe_load(handle)
    params["drift"].update(min_n=6, resamples=200)
    for stage in ("ingest", "crop"):
        params[stage]["workers"] = 1
    params["crop"].update(size_px=64, max_upsamples=0)
    paths = Paths(tmp_path)
    paths.params.write_text(yaml.safe_dump(params))
    batch = draw_batch(paths.raw / "arrived/site-3", 1, 3, emotions=EMOTIONS, size_px=160)
    mark_ready(batch)
    images = pd.DataFrame(columns=[*MANIFEST_SCHEMA.names])
    arrival = Arrival("site-3", "arrived", "d" * 64, "site-3", "", n_files=8, images=images)
    ledger = Ledger(paths.ledger)
    ledger.begin(arrival, "accepted", "data/raw/arrived/site-3", [])
    ledger.decide("site-3", "accepted")
    monkeypatch.setattr(registry, "champion", lambda _: None)
    return paths


def trained_on(paths: Paths, monkeypatch) -> list[str]:
    """Four adults on sharp, bright crops: two were seen by the model in use, two were not."""
    folder = draw_batch(paths.raw / "arrived", 1, 4, cohort="adult", emotions=EMOTIONS, size_px=160)
    rows = []
    for number, place in enumerate(sorted(folder.glob("*.jpg"))):
        row = dict.fromkeys(MANIFEST_SCHEMA.names)
        row |= {"image_id": f"{number:016x}", "path": f"arrived/{place.name}", "batch": ""}
        row |= {"dataset": "drawn", "subject_id": f"arrived/{place.name[:5]}", "gender": "female"}
        row |= {"emotion": place.name.split("_")[3], "age_years": 30.0 + number, "width_px": 160}
        row |= {"age_band": "adult", "height_px": 160, "split": "train", "detector_score": 1.0}
        row |= {"sharpness": 5e4 + number, "brightness": 200.0 + number}
        rows.append(row | {"shard": "none", "offset_bytes": 0})
    table = pd.DataFrame(rows)
    write_table(table, paths.split, MANIFEST_SCHEMA)
    seen = table[table["subject_id"].isin(table["subject_id"].unique()[:2])]
    spec = ModelSpec(
        architecture="lenet5",
        labels=EMOTIONS,
        input_size_px=32,
        color="rgb",
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        version="",
        source="made for a test",
    )
    torch.manual_seed(0)
    model = paths.at("model")
    seen = seen[["image_id", "subject_id"]].assign(stage="train", role="train")
    save_model(model, build_module("lenet5", 3, 3), spec, pd.concat([empty_seen_table(), seen]))
    settings = CropSettings(64, 0.25, "bilinear", 320, 0, 0.0)
    (model / "crop.json").write_text(json.dumps(asdict(settings)))
    version = Version(4, "abc", "run", ("champion",), {}, datetime.now(UTC))
    monkeypatch.setattr(registry, "champion", lambda _: version)
    monkeypatch.setattr(registry, "fetch", lambda *_: model)
    return sorted(set(seen["subject_id"]))


def test_without_any_training_data_the_page_says_so(project):
    assert write_drift_report(project, "site-3") is None
    page = (project.root / "reports/drift/site-3.md").read_text()
    assert "9 pictures of 3 people" in page and "no training data yet" in page
    with pytest.raises(UserError, match="no such batch"):
        write_drift_report(project, "site-9")


def test_a_batch_of_a_data_set_that_is_not_read_any_more_is_one_line(project):
    params = yaml.safe_load(project.params.read_text())
    del params["ingest"]["datasets"]["arrived"]
    project.params.write_text(yaml.safe_dump(params))
    with pytest.raises(UserError, match=r"site-3: .*`ingest\.datasets\.arrived`"):
        write_drift_report(project, "site-3")


def test_with_a_model_the_batch_is_compared_with_what_it_saw(project, monkeypatch):
    people = trained_on(project, monkeypatch)
    effect = write_drift_report(project, "site-3")
    table = pd.read_csv(project.root / "reports/drift/site-3.csv").set_index("feature")
    page = (project.root / "reports/drift/site-3.md").read_text()
    assert f"{3 * len(people)} pictures of 2 people that the model in use, version 4" in page
    assert set(table["notice"]) == {DRAWN_NOTICE}
    assert table.loc["age_years", "effect"] < -3 and table.loc["age_years", "batch"] < 10
    assert table.loc["brightness", "training"] > 200 > table.loc["brightness", "batch"] > 0
    confidence = table.loc["confidence"]
    assert confidence["n_training"] == 6  # of the two adults whom it did not see
    assert 1 / 3 <= confidence["batch"] <= 1 and confidence["n_batch"] > 4
    sure = table[(table["ci_low"] > 0) | (table["ci_high"] < 0)]
    # Two people are too few for a page of rows to be sure of any.
    assert effect == pytest.approx(sure["effect"].abs().max() if len(sure) else 0.0, rel=1e-3)


def test_a_batch_that_a_run_has_read_is_not_compared_with_itself(project, monkeypatch):
    """Its people are not in the model in use, as those of the held-out pictures are not."""
    trained_on(project, monkeypatch)
    table = pd.read_parquet(project.split)
    unseen = table["subject_id"].isin(table["subject_id"].unique()[2:])
    table.loc[unseen, "batch"] = "site-3"
    write_table(table, project.split, MANIFEST_SCHEMA)
    write_drift_report(project, "site-3")
    page = (project.root / "reports/drift/site-3.md").read_text()
    assert "There are no pictures of people whom the model did not see" in page
    table = pd.read_csv(project.root / "reports/drift/site-3.csv").set_index("feature")
    assert table.loc["age_years", "n_training"] > 0
    assert "confidence" not in table.index or table.loc["confidence", "n_training"] == 0
