"""Made-up runs of a study: networks of known skill, with people and seeds that differ."""

import json
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from tasks.core.tables import write_csv, write_table
from tasks.study.candidates import Run
from tasks.study.results import HISTORY, RESULT, VALIDATION, Result
from tasks.study.settings import Params

EMOTIONS = ("anger", "fear", "happiness", "neutral", "sadness", "surprise")
PARAMETERS = {"lenet5": 61_000, "compact": 390_000, "mobilenet_v3_small": 1_500_000}
PARAMETERS |= {"resnet50": 23_500_000, "resnet152": 58_200_000, "alexnet": 57_000_000}
PARAMETERS |= {"vgg16": 134_000_000, "senet": 26_000_000, "efficientnet_b0": 4_000_000}
PARAMETERS |= {"densenet121": 7_000_000}
SECTION = """
protocol: multi_seed
subset: {}
seeds: [1, 2, 3]
epochs: 12
backbones: [lenet5, compact, mobilenet_v3_small]
init_by_backbone: {}
losses: [cross_entropy, mse, multilabel_soft_margin, multi_margin, class_balanced, label_smoothed]
optimizers: [adam, adamw, adagrad, rmsprop, sgd, ranger]
learning_rates:
  adam: [0.0003, 0.001]
  adamw: [0.0003, 0.001]
  adagrad: [0.003, 0.01]
  rmsprop: [0.0003, 0.001]
  sgd: [0.01, 0.1]
  ranger: [0.001, 0.003]
published_learning_rate: 0.00001
halving: {min_epochs: 3, reduction_factor: 3, first_seeds: 1}
max_parallel: 0
confidence: 0.95
resamples: 400
resampling_seed: 6
published: autism_six_emotions
"""
TRAIN = {
    "weights": "some/model",
    "subset": {"age_band": ["adult"]},
    "init": "random",
    "backbone": "compact",
    "input_size_px": 96,
    "epochs": 20,
    "loss": {"name": "cross_entropy", "smoothing": 0.1, "beta": 0.999},
    "optimizer": {"name": "adam", "momentum": 0.9},
    "learning_rate": 0.001,
    "checkpoint": "best",
    "seed": 7,
}


def settings(**changed: object) -> Params:
    """Return a section `study`."""
    return Params.model_validate({**yaml.safe_load(SECTION), **changed})


class World:
    """Answers runs; `skills` adds to the log-odds of backbones, losses and optimizers by name."""

    def __init__(
        self,
        skills: Mapping[str, float],
        people: int = 30,
        failing: Iterable[str] = (),
        seed_sd: float = 0.1,
    ) -> None:
        self.skills = skills
        self.people = people
        self.failing = tuple(failing)
        self.seed_sd = seed_sd
        rng = np.random.default_rng(11)
        n = people * len(EMOTIONS)
        self.person = np.repeat(np.arange(people), len(EMOTIONS))
        self.ease = rng.normal(0, 0.7, people)[self.person] + rng.normal(0, 0.8, n)
        self.trained: list[str] = []

    def results(self, runs: Iterable[Run]) -> dict[str, Result]:
        """Train."""
        return {run.key: self.result(run) for run in runs}

    def result(self, run: Run) -> Result:
        """Train one run: the same epochs for the same recipe and seed, however far it goes."""
        self.trained.append(run.key)
        train = run.train
        rate = f"{train['optimizer']['name']}@{train['learning_rate']:g}"
        names = (train["backbone"], train["loss"]["name"], train["optimizer"]["name"], rate)
        skill = sum(self.skills.get(name, 0.0) for name in names)
        rng = np.random.default_rng(zlib.crc32(f"{names} {run.seed}".encode()))
        own = rng.normal(0, self.seed_sd) + rng.normal(0, 0.5, len(self.ease))
        rows, right = [], np.zeros(len(self.ease), dtype=bool)
        for epoch in range(1, run.until + 1):
            learned = 1 - np.exp(-4 * epoch / train["epochs"])
            right = -1.6 + (2.2 + skill) * learned + self.ease + own > 0
            recall = right.mean()
            loss = 1.8 - 1.5 * recall
            rows.append((epoch, loss - 0.2 * learned, loss, recall, recall))
        failed = next((name for name in self.failing if name in names), "")
        return self._written(run, rows, right, f"{failed}: the loss is NaN" if failed else "")

    def _written(self, run: Run, rows: list, right: np.ndarray, failed: str) -> Result:
        columns = ["epoch", "train_loss", "valid_loss", "valid_recall_score"]
        history = pd.DataFrame(rows, columns=[*columns, "valid_accuracy_score"])
        emotion = np.tile(np.array(EMOTIONS), self.people)
        other = np.roll(emotion, 1)
        validation = pd.DataFrame(
            {
                "image_id": [f"{i:016x}" for i in range(len(emotion))],
                "subject_id": [f"set/{p}" for p in self.person],
                "subject_known": True,
                "age_band": np.where(self.person % 2, "child", "adult"),
                "gender": np.where(self.person % 3, "female", "male"),
                "emotion": emotion,
                "y_pred": np.where(right, emotion, other),
            }
        )
        parameters = PARAMETERS.get(run.train["backbone"], 1000)
        pace = 3000 / (1 + parameters / 1e6)
        last = history.iloc[-1]
        facts = {
            **{name: getattr(run, name) for name in ("round", "arm", "seed", "until")},
            "epochs": run.train["epochs"],
            "backbone": run.train["backbone"],
            "parameters": parameters,
            "train_seconds": run.until * 540 / pace,
            "images_per_second": pace,
            "input_size_px": 96,
            "device": "cpu",
            "kept_epoch": int(last["epoch"]),
            "train_images": 540,
            "validation_images": len(emotion),
            **{name: float(last[name]) for name in history.columns[2:]},
        }
        if failed:
            return Result(run.key, {**facts, "failed": failed}, history[:0], validation[:0])
        return Result(run.key, facts, history, validation)


def write_results(results: Iterable[Result], folder: Path) -> None:
    """Write results as the stage `study_run` does."""
    for result in results:
        home = folder / result.key
        home.mkdir(parents=True, exist_ok=True)
        (home / RESULT).write_text(json.dumps(dict(result.facts)))
        write_csv(result.history, home / HISTORY)
        write_csv(result.validation, home / VALIDATION)


def make_project(root: Path, params: Params, world: World) -> dict[str, Result]:
    """Write a folder with a finished study: results, params.yaml and a split table."""
    from tasks.study.plan import progress

    results: dict[str, Result] = {}
    while wanted := progress(params, TRAIN, results).wanted:
        results |= world.results(wanted)
        for run in wanted:
            file = root / f"study/runs/{run.key}.yaml"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(yaml.safe_dump(run.content()))
    write_results(results.values(), root / "study/results")
    content = {"train": TRAIN, "study": params.model_dump()}
    (root / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    rows = [
        (part, f"set/{part}{person}", "drawn")
        for part, people in (("train", 90), ("validation", 30), ("test", 30))
        for person in range(people)
    ]
    split = pd.DataFrame(rows, columns=["split", "subject_id", "dataset"])
    write_table(split, root / "data/split.parquet")
    return results


def made_up_test(params: Params, seeds: int, look: int = 1) -> pd.DataFrame:
    """Return study/test.csv of a winner that reads adults better."""
    from tasks.study.results import PEOPLE_ALONE
    from tasks.study.test_evaluation import level_of

    rows = []
    groups = [("all", "all", 180, 30), ("age_band", "adult", 90, 15), ("age_band", "child", 84, 14)]
    groups += [("age_band", "adolescent", 6, 1), ("gender", "female", 100, 17)]
    groups += [("gender", "male", 80, 13)]
    for place, (dimension, group, images, people) in enumerate(groups):
        for measure, value in (("mean_recall", 0.62), ("accuracy", 0.64)):
            value, reach = value - 0.03 * place, np.nan if people == 1 else 0.5 / people**0.5
            ends = (reach / 2, value - reach, value + reach)
            counts = (images, people, 6, seeds, 0, 0)
            row = (dimension, group, measure, value, *ends, *counts, look, params.confidence)
            rows.append((*row, level_of(look, params.confidence), PEOPLE_ALONE))
    columns = ["dimension", "group", "measure", "value", "se", "ci_low", "ci_high", "images"]
    columns += ["people", "emotions", "seeds", "also_trained_on", "left_out", "look"]
    columns += ["confidence", "interval_level", "method"]
    return pd.DataFrame(rows, columns=columns)
