"""Every path that a stage reads or writes, and which stage owns which output.

A test keeps `STAGE_OUTS` equal to dvc.yaml.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from tasks.core.errors import UserError

CROP_SETTINGS = "crop.json"  # beside the crops, and in the folder of every model
MODELS: tuple[str, ...] = ("base", "finetuned")  # the models of one run, in the order of training
TRAINED: tuple[str, ...] = ("naive", "head", "replay", "distill")  # ways to fine-tune by training
STRATEGIES: tuple[str, ...] = (*TRAINED, "interpolate")  # what `finetuned` is chosen from
EVALUATED: tuple[str, ...] = (*MODELS, *STRATEGIES)  # every model that predicts
STUDY_RUN = "study_run"  # the training stage of a study; its item is the run's key
STUDY_OUTS: dict[str, tuple[str, ...]] = {  # the stages that follow the runs of a study
    "study_choose": ("study/tables", "study/chosen.yaml"),
    "study_test": ("study/test.csv",),
    "study_report": ("reports/study.html", "reports/study"),
}
URI_FORM = "?uri=true"  # ends an address whose path is escaped
_PLAIN_PATH = re.compile(r"[^?%#]*")


@dataclass(frozen=True)
class Paths:
    """The project's folders below `root` (an absolute path)."""

    root: Path

    def at(self, relative: str) -> Path:
        """Return a path below the root."""
        return self.root / relative

    @property
    def params(self) -> Path:
        """Return params.yaml."""
        return self.at("params.yaml")

    @property
    def raw(self) -> Path:
        """Return the folder of original images, one folder per data set."""
        return self.at("data/raw")

    @property
    def drawn(self) -> Path:
        """Return the drawn cohort's images."""
        return self.at("data/raw/drawn")

    @property
    def truth(self) -> Path:
        """Return the folder of the drawn images' ground truth: landmarks and moved regions."""
        return self.at("data/truth")

    @property
    def manifest(self) -> Path:
        """Return the table of ingested images."""
        return self.at("data/manifest.parquet")

    @property
    def checked(self) -> Path:
        """Return the table of images that passed the checks."""
        return self.at("data/checked.parquet")

    @property
    def check_results(self) -> Path:
        """Return the JSON file of the results of every expectation."""
        return self.at("data/checks.json")

    @property
    def crops(self) -> Path:
        """Return the table of face crops."""
        return self.at("data/crops.parquet")

    @property
    def crop_shards(self) -> Path:
        """Return the folder of WebDataset shards that hold the crops."""
        return self.at("data/crops")

    @property
    def crop_settings(self) -> Path:
        """Return the crop settings; every model trained on the crops has a copy."""
        return self.at(f"data/crops/{CROP_SETTINGS}")

    @property
    def split(self) -> Path:
        """Return the table with each image's split."""
        return self.at("data/split.parquet")

    @property
    def figures(self) -> Path:
        """Return the folder of figures."""
        return self.at("reports/figures")

    @property
    def tables(self) -> Path:
        """Return the folder of the report's tables."""
        return self.at("reports/tables")

    @property
    def report(self) -> Path:
        """Return the report."""
        return self.at("reports/report.html")

    @property
    def metrics(self) -> Path:
        """Return the JSON file of the report's figures."""
        return self.at("reports/metrics.json")

    @property
    def mlruns(self) -> Path:
        """Return the folder of the tracking store."""
        return self.at("mlruns")

    @property
    def inbox(self) -> Path:
        """Return the folder where others deliver batches of new images."""
        return self.at("data/inbox")

    @property
    def quarantine(self) -> Path:
        """Return the folder of rejected batches, each complete and with its reasons."""
        return self.at("data/quarantine")

    @property
    def ledger(self) -> Path:
        """Return the database of all batches, images and passes."""
        return self.at("data/ledger.db")

    @property
    def registry(self) -> Path:
        """Return the folder of decisions about models: small text files, tracked by git."""
        return self.at("registry")

    @property
    def promotions(self) -> Path:
        """Return the append-only table of decisions."""
        return self.at("registry/promotions.csv")

    def decision(self, version: int) -> Path:
        """Return the folder of the gate's decision about a version of the model."""
        return self.at(f"registry/decisions/{version}")

    def rejects(self, stage: str) -> Path:
        """Return the table of a stage's rejects."""
        return self.at(f"data/rejects/{stage}.csv")

    def model(self, name: str) -> Path:
        """Return a model's folder."""
        return self.at(f"models/{name}")

    def predictions(self, model: str) -> Path:
        """Return a model's table of predictions."""
        return self.at(f"data/predictions/{model}.parquet")

    def explanations(self, model: str) -> Path:
        """Return a model's table of explanations."""
        return self.at(f"data/explanations/{model}.parquet")

    def run_record(self, stage: str) -> Path:
        """Return the file with the id of the tracking run that made a stage's outputs."""
        name, _, key = stage.partition("@")
        if name == STUDY_RUN:
            return self.study_result(key) / "run.json"
        if name in STUDY_OUTS:
            return self.at(f"study/run_records/{name}.json")
        return self.at(f"data/runs/{stage.replace('@', '-')}.json")

    def study_run(self, key: str) -> Path:
        """Return the settings file of one run of a study."""
        return self.at(f"study/runs/{key}.yaml")

    def study_result(self, key: str) -> Path:
        """Return the folder of the results of one run of a study."""
        return self.at(f"study/results/{key}")

    def work(self, stage: str, digest: str) -> Path:
        """Return a folder for resumable progress, outside of all outputs."""
        return self.at(f"work/{stage.replace('@', '-')}/{digest}")


def _outs() -> dict[str, tuple[str, ...]]:
    outs: dict[str, tuple[str, ...]] = {
        "draw": ("data/raw/drawn", "data/truth"),
        "ingest": ("data/manifest.parquet", "data/rejects/ingest.csv"),
        "check": ("data/checked.parquet", "data/rejects/check.csv", "data/checks.json"),
        "crop": (
            "data/crops.parquet",
            "data/crops",
            "data/rejects/crop.csv",
            "reports/figures/crops.png",
        ),
        "split": ("data/split.parquet", "reports/tables/splits.csv"),
        "train": ("models/base", "reports/figures/augmentation.png"),
    }
    for name in TRAINED:
        outs[f"finetune@{name}"] = (f"models/{name}",)
    outs["interpolate"] = ("models/interpolate",)
    outs["choose"] = ("models/finetuned", "reports/tables/choice.csv")
    for name in EVALUATED:
        outs[f"evaluate@{name}"] = (f"data/predictions/{name}.parquet",)
    outs["audit"] = (
        "reports/tables/counts.csv",
        "reports/tables/groups.csv",
        "reports/tables/gaps.csv",
        "reports/tables/before_after.csv",
        "reports/tables/confusion.csv",
        "reports/tables/factors.csv",
        "reports/tables/standardized.csv",
        "reports/tables/fairness.csv",
        "reports/tables/calibration.csv",
        "reports/tables/confusion_gaps.csv",
        "reports/tables/intersections.csv",
        "reports/tables/predictive_values.csv",
        "reports/tables/sensitivity.csv",
        "reports/tables/strategies.csv",
        "reports/tables/published.csv",
        "reports/tables/pretraining.csv",
        "reports/figures/recall.png",
        "reports/figures/confusion.png",
        "reports/figures/before_after.png",
        "reports/figures/factors.png",
        "reports/figures/calibration.png",
        "reports/figures/strategies.png",
    )
    for name in MODELS:
        outs[f"explain@{name}"] = (
            f"data/explanations/{name}.parquet",
            f"reports/figures/lime_{name}.png",
            f"reports/tables/lime_{name}.csv",
        )
    outs["report"] = (
        "reports/report.html",
        "reports/metrics.json",
        "reports/figures/example_images.png",
        "reports/figures/training.png",
    )
    return {
        stage: (*paths, f"data/runs/{stage.replace('@', '-')}.json")
        for stage, paths in outs.items()
    }


STAGE_OUTS = _outs()


def find_root(start: Path) -> Path:
    """Find the project's folder at or above `start`; raises UserError where there is none."""
    for folder in (start.resolve(), *start.resolve().parents):
        if (folder / "dvc.yaml").is_file() and (folder / "tasks").is_dir():
            return folder
    raise UserError(f"{start}: no affectgap project here or above (no dvc.yaml); cd into a clone")


def sqlite_url(file: Path, driver: str = "") -> str:
    """Return the SQLAlchemy address of a database file, given as an absolute path.

    A `?` would end the path, and the database would be made outside of the project. A path with
    such characters is written as a file URI, whose escapes SQLite resolves.
    """
    scheme = f"sqlite+{driver}" if driver else "sqlite"
    if _PLAIN_PATH.fullmatch(str(file)):
        return f"{scheme}:///{file}"
    # Without the driver's name MLflow would make a folder `file:`.
    return f"{scheme if driver else 'sqlite+pysqlite'}:///{file.as_uri()}{URI_FORM}"
