"""A small project that the report can be made from, with a planted gap and a planted change."""

import hashlib
import itertools
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tasks.core.imaging.shards import encode_png, write_shards
from tasks.core.paths import Paths
from tasks.core.tables import MANIFEST_SCHEMA, rejects_table, write_csv, write_table
from tasks.report import stage
from tasks.report.inputs import FIGURES

LABELS = ["happiness", "neutral"]
MODELS = ("base", "finetuned")
CI = {"ci_low": 0.1, "ci_high": 0.95, "confidence": 0.95}
BANDS = ("all", "child", "adult")


def manifest(dataset):
    rows = []
    for person, emotion in itertools.product(range(20), LABELS):
        name = hashlib.sha256(f"{person}{emotion}".encode()).hexdigest()
        band = "child" if person % 2 else "adult"
        rows.append(
            {
                "image_id": name[:16],
                "path": f"{dataset}/{person}.png",
                "dataset": dataset,
                "batch": "",
                "subject_id": f"{dataset}/{person}",
                "subject_known": True,
                "emotion": emotion,
                "emotion_raw": emotion,
                "age_years": 6.0 if band == "child" else 30.0,
                "age_band": band,
                "age_source": "recorded",
                "gender": "female",
                "ethnicity": "unknown",
                "gaze": "direct",
                "mouth": "closed",
                "pose": "front",
                "width_px": 64,
                "height_px": 64,
                "sha256": name,
                "split": ["train", "validation", "test"][person % 3],
            }
        )
    return pd.DataFrame(rows)


def audit_tables(dataset, gap=0.4, p_adjusted=0.001):
    """The audit's tables as its contract has them, with a planted gap and a planted change."""
    cells = list(itertools.product(("all", dataset), BANDS, ("all", *LABELS)))
    base = pd.DataFrame(cells, columns=["dataset", "age_band", "emotion"])
    groups = pd.concat(
        base.assign(model=model, protocol=protocol, gender="all", n=40, correct=20, recall=0.5)
        for model, protocol in itertools.product(MODELS, ("held_out", "all"))
    ).assign(**CI, subjects=20, method="Wilson")
    first = ["model", "protocol", "dataset", "age_band", "gender", "emotion", "n", "correct"]
    groups = groups[[*first, "recall", "ci_low", "ci_high", "subjects", "confidence", "method"]]
    change = base.assign(gender="all", n=32, subjects=16, recall_base=0.5, recall_finetuned=0.75)
    change = change.assign(
        change=0.25, **CI, both=14, lost=2, gained=10, neither=6, p_value=0.001, p_adjusted=0.001
    )
    for name in MODELS:
        change = change.assign(**{f"{name}_ci_low": 0.3, f"{name}_ci_high": 0.8})
    change.loc[change["age_band"] == "adult", ["change", "lost", "gained"]] = [-0.125, 8, 4]
    change.loc[change["age_band"] == "all", "p_adjusted"] = np.nan
    gaps = pd.concat(
        pd.DataFrame(
            {
                "model": model,
                "protocol": protocol,
                "dataset": "all",
                "dimension": "age_band",
                "group_a": "child",
                "group_b": "adult",
                "emotion": ["all", "happiness"],
                "n_a": 40,
                "correct_a": 16,
                "recall_a": 0.4,
                "subjects_a": 10,
                "n_b": 40,
                "correct_b": 32,
                "recall_b": 0.8,
                "subjects_b": 10,
                "gap": [-gap, -gap - 0.1],
                "ci_low": -0.56,
                "ci_high": -0.18,
                "confidence": 0.95,
                "p_value": p_adjusted,
                "p_adjusted": p_adjusted,
                "mde": 0.123,
                "power": 0.8,
                "enough_n": True,
                "emotions": "happiness neutral",
                "left_out_emotions": "",
                "n_left_out": 0,
                "datasets_with_both": dataset,
                "family": "f",
                "method": "m",
            }
        )
        for model, protocol in itertools.product(MODELS, ("held_out", "all"))
    )
    confusion = pd.DataFrame(
        [
            (model, "held_out", dimension, group, true, answer, 10, 20, 0.5)
            for model in MODELS
            for dimension, group in [("all", "all"), ("age_band", "child"), ("age_band", "adult")]
            for true, answer in itertools.product(LABELS, LABELS)
        ],
        columns=[
            *("model", "protocol", "dimension", "group", "emotion", "y_pred"),
            *("n", "n_emotion", "share"),
        ],
    )
    splits = ("all", "train", "test")
    counts = pd.concat(
        base.assign(model=model, gender="all", split=split, images=40, subjects=20, held_out=20)
        for model, split in itertools.product(MODELS, splits)
    ).assign(left_out=0)
    order = ["model", "dataset", "age_band", "gender", "emotion", "split"]
    counts = counts[[*order, "images", "subjects", "held_out", "left_out"]]
    tables = {"groups": groups, "before_after": change, "gaps": gaps}
    return tables | {"confusion": confusion, "counts": counts}


def further_tables(p_adjusted=0.001):
    """Tables that not every run has, by the columns that the audit writes."""
    how = {"confidence": 0.95, "method": "cluster bootstrap by subject"}
    held_out = {"model": "base", "protocol": "held_out"}
    bands = {"dimension": "age_band", "group_a": "child", "group_b": "adult"}
    strategies = [
        {
            "strategy": name,
            "chosen": name == "replay",
            "validation_worst_group": "child",
            "validation_worst_recall": 0.8,
            "dimension": "age_band",
            "group": group,
            "is_target_group": group == "child",
            "n": 154 if group == "child" else 238,
            "subjects": 11,
            "recall_base": 0.5,
            "recall_strategy": 0.5 + change,
            "change": change,
            "ci_low": change - 0.02,
            "ci_high": change + 0.03,
            "p_value": p_adjusted,
            "p_adjusted": p_adjusted,
            "against_naive": np.nan if name == "naive" else 0.006,
            "against_naive_ci_low": np.nan if name == "naive" else -0.03,
            "against_naive_ci_high": np.nan if name == "naive" else 0.05,
            **how,
        }
        for name, group, change in [
            *(("naive", "child", 0.39), ("naive", "adult", -0.11)),
            *(("replay", "child", 0.396), ("replay", "adult", -0.004)),
        ]
    ]
    selection = {"advantage": 0.36, "advantage_se": 0.03, "threshold": 0.06, "optimism": 0.012}
    selection |= {"recall_score_corrected": 0.908}
    choice = [
        {
            "strategy": name,
            "dimension": "age_band",
            "group": group,
            "n": 140,
            "subjects": 10,
            "correct": 129,
            "recall": 0.9214,
            "ci_low": 0.865,
            "ci_high": 0.956,
            "recall_score": 0.92,
            "counts": True,
            "worst": group == "child",
            "chosen": name == "replay",
            **how,
            "note": "",
            **({} if name == "base" or group != "child" else selection),
        }
        for name in ("base", "naive", "replay")
        for group in ("child", "adult")
    ]
    choice.append({"strategy": "head", "chosen": False, "note": "params leave it out"})
    standardized = [
        {
            **held_out,
            "dataset": "all",
            **bands,
            "emotion": "all",
            "standardized_to": mix,
            "n_a": 40,
            "n_b": 38,
            "share_a": 1.0,
            "share_b": 0.95,
            "recall_a": 0.4,
            "recall_b": 0.4 - gap,
            "gap": gap,
            "ci_low": gap - 0.1,
            "ci_high": gap + 0.1,
            **how,
        }
        for mix, gap in (("nothing (raw)", -0.4), ("emotion", -0.31), ("emotion, mouth", -0.27))
    ]
    factor = {**held_out, "factor": "age_band", "level": "child", "reference": "adult", "n": 40}
    factors = [
        {**factor, "subjects": 10, "odds_ratio": 0.05, "ci_low": 0.01, "ci_high": 0.2,
         "p_value": p_adjusted, "p_adjusted": p_adjusted, **how, "note": ""},
        {**held_out, "factor": "gaze", "note": "recorded for no picture", "confidence": 0.95},
    ]  # fmt: skip
    fairness = [
        {**held_out, "dimension": "age_band", "metric": metric, "emotion": emotion,
         "worst_group": "child", "worst": 0.4, "best_group": "adult", "best": 0.8,
         "difference": 0.4, "ratio": 0.5, "overall": 0.6, "equalized_odds_difference": 0.4,
         "n_smallest": 38, "left_out_groups": "adolescent (3)", "n_worst": 40, "n_best": 38,
         "worst_ci_low": 0.25, "worst_ci_high": 0.57, "best_ci_low": 0.63, "best_ci_high": 0.91,
         "difference_ci_low": 0.2, "difference_ci_high": 0.6, "ratio_ci_low": 0.3,
         "ratio_ci_high": 0.76, "p_value": 0.002, "equalized_odds_ci_low": 0.2,
         "equalized_odds_ci_high": 0.6, **how}
        for metric, emotion in (("recall", "all"), ("true_positive_rate", "happiness"))
    ]  # fmt: skip
    calibration = [
        {**held_out, "dimension": "age_band", "group": group, "bin": "all", "n": 40,
         "subjects": 10, "confidence_mean": 0.9, "accuracy": right, "ece_loss": 0.9 - right,
         "ci_low": 0.1, "ci_high": 0.6, "ece_by_chance": 0.05, "p_adjusted": 0.01,
         "from_others_p_adjusted": 0.02, "overconfidence": 0.9 - right,
         "overconfidence_ci_low": 0.1, "overconfidence_ci_high": 0.6, **how}
        for group, right in (("child", 0.4), ("adult", 0.8))
    ]  # fmt: skip
    confusion_gaps = [
        {**held_out, **bands, "emotion": emotion, "y_pred": answer, "n_a": 40, "share_a": 0.3,
         "n_b": 38, "share_b": 0.1, "gap": 0.2, "ci_low": 0.1, "ci_high": 0.3, "p_value": p,
         "p_adjusted": p, "correction": "holm", **how}
        for emotion, answer, p in (
            ("happiness", "neutral", p_adjusted),
            ("disgust", "anger", 0.9),
            ("neutral", "happiness", 0.9),
        )
    ]  # fmt: skip
    printed = {"source": "Noh & Lim 2023", "table": "3", "page": "9", "model": "base"}
    printed |= {"dataset": "drawn", "age_band": "child", "gender": "all", "emotion": "all"}
    published = [
        {**printed, "published_n": 40, "published_correct": 20, "published_rate": 0.86,
         "note": "does not add up: 20 of 40 is 50.0 %, printed is 86 %", "compared_model": "base",
         "n": 40, "correct": 20, "recall": 0.5, "ci_low": 0.3, "ci_high": 0.7, "protocol": protocol}
        for protocol in ("all", "held_out")
    ]  # fmt: skip
    published.append(
        {**published[0], "model": "finetuned", "published_rate": 0.92, "correct": 30,
         "recall": 0.75, "compared_model": "naive", "note": "ours is naive"}
    )  # fmt: skip
    pretraining = [
        {"model": "base", "training_set": "VGGFace2", "attribute": "age", "group": "0-12 years",
         "share": 0.0001, "n": np.nan, "source": "Noh & Lim 2023", "note": ""},
        {"model": "base", "training_set": "AffectNet", "note": "no ages are published with it"},
    ]  # fmt: skip
    found = {"strategies": strategies, "choice": choice, "standardized": standardized}
    found |= {"factors": factors, "fairness": fairness, "calibration": calibration}
    found |= {"confusion_gaps": confusion_gaps, "published": published}
    return {name: pd.DataFrame(rows) for name, rows in found.items()} | {
        "pretraining": pd.DataFrame(pretraining)
    }


def make_project(root, dataset="drawn", optional=True, **audit):
    """Write a small project that the report can be made from."""
    paths = Paths(root)
    images = manifest(dataset)
    write_table(images.drop(columns="split"), paths.manifest, MANIFEST_SCHEMA)
    gray = encode_png(np.full((32, 32, 3), 127, dtype=np.uint8))
    paths.crop_shards.mkdir(parents=True)
    members = [(f"{name}.png", gray) for name in images["image_id"]]
    places = pd.DataFrame([vars(p) for p in write_shards(members, paths.crop_shards, 100)])
    boxes = pd.Series([[8.0, 16.0, 40.0, 48.0]] * len(images), name="box_xyxy_px")
    write_table(pd.concat([images, places, boxes], axis=1), paths.crops)
    for person, path in enumerate(dict.fromkeys(images["path"])):
        (paths.raw / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), (10 * person, 100, 200)).save(paths.raw / path)
    for index, model in enumerate(MODELS):
        frame = images.assign(model=model, y_pred=LABELS[index], p_happiness=0.6, p_neutral=0.4)
        frame["seen_in_training"] = frame["split"] != "test"
        write_table(frame, paths.predictions(model))
    for name, table in audit_tables(dataset, **audit).items():
        write_csv(table, paths.tables / f"{name}.csv")
    if optional:
        for name, table in further_tables(audit.get("p_adjusted", 0.001)).items():
            write_csv(table, paths.tables / f"{name}.csv")
        write_optional(paths, images)
    return paths


def write_optional(paths, images):
    paths.params.write_text("split:\n  unit: subject\n# <script>alert(1)</script>\n")
    lost = images[images["age_band"] == "child"].iloc[:3]
    write_csv(
        rejects_table(
            [(i, p, "no_face", "") for i, p in zip(lost["image_id"], lost["path"], strict=True)]
        ),
        paths.rejects("crop"),
    )
    write_csv(rejects_table([("", "drawn/a&b.png", "damaged", "cut")]), paths.rejects("ingest"))
    write_csv(rejects_table(), paths.rejects("check"))
    checks = [{"name": "min_rows", "kind": "set", "success": True, "observed": 40}]
    checks += [{"name": "odd", "column": "age_years", "success": False, "unexpected_count": 2}]
    paths.check_results.write_text(json.dumps(checks))
    epochs = {"epoch": [1, 2], "train_loss": [1.0, 0.5], "valid_loss": [1.0, 0.7]}
    history = pd.DataFrame({**epochs, "valid_recall_score": [0.5, 0.8]})
    write_csv(history.iloc[:0], paths.model("base") / "history.csv")
    write_csv(history, paths.model("finetuned") / "history.csv")
    for stage_name in ("ingest", "evaluate@base"):
        paths.run_record(stage_name).parent.mkdir(parents=True, exist_ok=True)
        record = {"stage": stage_name, "run_id": f"run-of-{stage_name}"}
        paths.run_record(stage_name).write_text(json.dumps(record))
    paths.figures.mkdir(parents=True, exist_ok=True)
    for name in FIGURES:
        Image.new("RGB", (60, 40), "white").save(paths.figures / f"{name}.png")


def run(paths, images=4):
    params = stage.Params(title="Who is <read>?", question="How?", example_images=images, seed=1)
    result = stage.run(params, paths)
    return paths.report.read_text(encoding="utf-8").replace("\u202f", " "), result


@pytest.fixture(scope="module")
def project():
    """The maker of a project: `project(root, dataset, optional, gap, p_adjusted)` to its paths."""
    return make_project


@pytest.fixture(scope="module")
def report():
    """The maker of a report: `report(paths, pictures)` to the page and the stage's result."""
    return run


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """The page of the drawn cohort with all its tables, its paths and the stage's result."""
    paths = make_project(tmp_path_factory.mktemp("drawn"))
    page, result = run(paths)
    return page, paths, result


@pytest.fixture(scope="session")
def unshown(tmp_path_factory):
    """The same where no gap and no change could be shown."""
    paths = make_project(tmp_path_factory.mktemp("unshown"), p_adjusted=0.4)
    page, result = run(paths)
    return page, paths, result


@pytest.fixture
def images():
    """The manifest of the drawn cohort, with splits."""
    return manifest("drawn")
