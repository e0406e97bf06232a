"""The published study from one command, on drawn stand-ins under the licensed sets' real names."""

import hashlib
import json
import os
import re
from pathlib import Path

import pandas as pd
import pytest
from keras_writer import head, mobilenet, write_flat
from whole_way import RUN, call, fresh_clone

from tasks.draw.action_units import Style
from tasks.draw.plan import ImageName, RenderSpec
from tasks.draw.render import RenderJob, draw_images
from tasks.ingest.adapters import ADAPTERS
from tasks.ingest.label import Label

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

ASSETS = os.environ.get("AFFECTGAP_ASSETS")
needs_names = pytest.mark.skipif(
    not ASSETS, reason="AFFECTGAP_ASSETS does not name a folder with labels/"
)
PEOPLE = 10  # of each set
# What makes the study small: nothing else of the preset is changed.
SMALLER = {
    "min_rows": "50",
    "min_per_group": "2",
    "min_subjects_per_group": "2",
    "epochs": "1",
    "coefficients": "3",
    "num_samples": "20",
    "images_per_group": "1",
    "resamples": "200",
    "min_n": "2",
    "seed": "241",  # with it two people of each set are in validation and two in test
}


def names(dataset: str) -> list[str]:
    """Return the names of a set's pictures."""
    labels = Path(ASSETS) / "labels"
    if dataset == "cafe":
        return (labels / "cafe_names.txt").read_text().split()
    return pd.read_csv(labels / "labels_NIMH-ChEFS.csv")["name"].tolist()


def draw(folder: Path, first: int) -> int:
    """Draw a face for every picture of the set's first people; return how many there are."""
    read = ADAPTERS[folder.name](folder, names(folder.name)).labels
    images = {name: label for name, label in read.items() if isinstance(label, Label)}
    genders = {label.subject: label.gender for label in images.values()}
    people = [
        who
        for gender in ("female", "male")
        for who in [w for w in genders if genders[w] == gender][: PEOPLE // 2]
    ]
    assert len(people) == PEOPLE
    folder.mkdir()
    mine = {name: label for name, label in images.items() if label.subject in people}
    style = Style(intensity_mean=0.8, intensity_sd=0.1, unit_mixing=0.1)
    for take, (name, label) in enumerate(mine.items(), 1):
        number = first + people.index(label.subject)
        image = ImageName(f"D{number:04}", 10, label.gender, label.emotion, take)
        (drawn,) = draw_images([RenderJob(RenderSpec(image, "child", number), style, 7, 256)])
        (folder / name).write_bytes(drawn.jpeg)
    return len(mine)


@needs_names
def test_the_study_runs_from_one_command(tmp_path, monkeypatch):
    folder = fresh_clone(tmp_path / "study", "cafe-nimh")
    text = (folder / "params.yaml").read_text()
    for key, value in SMALLER.items():
        text = re.sub(rf"(?m)^( +{key}: )\S+", rf"\g<1>{value}", text)
    (folder / "params.yaml").write_text(text)
    children = draw(tmp_path / "cafe", 1)
    adolescents = draw(tmp_path / "nimh-chefs", 3001)
    weights = tmp_path / "cache" / "weights" / "mobilenet_7.h5"
    weights.parent.mkdir(parents=True)
    write_flat(weights, [*mobilenet(), *head()])
    monkeypatch.setenv("AFFECTGAP_CACHE", str(tmp_path / "cache"))

    for name in ("cafe", "nimh-chefs"):
        call(folder, *RUN, "intake", str(tmp_path / name), "--dataset", name)
    call(folder, *RUN, "run", "--quiet")

    predictions = pd.read_parquet(folder / "data" / "predictions" / "base.parquet")
    counts = predictions["dataset"].value_counts()
    assert (counts["cafe"], counts["nimh-chefs"]) == (children, adolescents)
    bands = predictions.groupby("dataset")["age_band"].unique()
    assert (list(bands["cafe"]), list(bands["nimh-chefs"])) == (["child"], ["adolescent"])
    spec = json.loads((folder / "models" / "base" / "model.json").read_text())
    assert hashlib.sha256(weights.read_bytes()).hexdigest() in spec["source"]

    published = pd.read_csv(folder / "reports" / "tables" / "published.csv")
    rows = published[(published["model"] == "base") & (published["protocol"] == "all")]
    for dataset, rate in (("cafe", 0.67), ("nimh-chefs", 0.86)):
        (row,) = rows[(rows["dataset"] == dataset) & (rows["emotion"] == "all")].to_dict("records")
        part = predictions[predictions["dataset"] == dataset]
        right = int((part["y_pred"] == part["emotion"]).sum())
        assert (row["published_rate"], row["n"], row["correct"]) == (rate, len(part), right)

    strategies = pd.read_csv(folder / "reports" / "tables" / "strategies.csv")
    assert set(strategies["strategy"]) == {"naive", "head", "replay", "distill", "interpolate"}
    html = (folder / "reports" / "report.html").read_text()
    assert "30.7" in html  # the share of women, as the study prints it
    gaps = pd.read_csv(folder / "reports" / "tables" / "gaps.csv")
    left_out = gaps[(gaps["dimension"] == "age_band") & (gaps["emotion"] == "all")]
    assert set(left_out["left_out_emotions"]) == {"disgust surprise"}  # NIMH-ChEFS lacks both
