"""Lineage answers both ways, also about what was withdrawn, refused or never trained on."""

import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from flows.ledger.ledger import Arrival, Ledger
from flows.lineage.lineage import lineage_lines
from tasks.core.errors import ModelError, UserError
from tasks.core.files import sha256_of
from tasks.core.models.checkpoint import SEEN_COLUMNS
from tasks.core.paths import Paths
from tasks.core.tables import MANIFEST_SCHEMA, write_csv, write_table
from tasks.register import registry, version_artifacts
from tasks.register.versions import Version


def image(paths: Paths, name: str, subject: str, band: str, batch: str = "") -> dict[str, object]:
    """A picture in data/raw, and its row of the manifest."""
    path = "/".join(filter(None, ("site", batch, f"{name}.jpg")))
    place = paths.raw / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(name.encode())
    digest = sha256_of(place)
    empty = dict.fromkeys(MANIFEST_SCHEMA.names)
    return {
        **empty,
        "image_id": digest[:16],
        "sha256": digest,
        "path": path,
        "dataset": "site",
        "batch": batch,
        "subject_id": f"site/{subject}",
        "emotion": "anger",
        "age_band": band,
        "gender": "female",
    }


def model(
    folder: Path, seen: list[tuple[str, str, str, str]], tested: list[tuple[str, str]]
) -> Path:
    write_csv(pd.DataFrame(seen, columns=list(SEEN_COLUMNS)), folder / "seen.csv")
    write_csv(pd.DataFrame(tested, columns=["image_id", "subject_id"]), folder / "test.csv")
    return folder


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An adult in training, a child who came in a batch, a withdrawn batch, and two versions."""
    paths = Paths(tmp_path)
    adult = image(paths, "a", "anna", "adult")
    tested = image(paths, "t", "tom", "adult")
    first = image(paths, "c1", "carl", "child", "site-3")
    second = image(paths, "c2", "carl", "child", "site-3")
    gone = image(paths, "g", "gina", "child", "site-4")
    (paths.raw / str(gone["path"])).unlink()
    rows = pd.DataFrame([adult, tested, first, second])
    write_table(rows, paths.manifest, MANIFEST_SCHEMA)
    rows["split"] = ["train", "test", "train", "train"]
    write_table(rows, paths.split, MANIFEST_SCHEMA)
    ledger = Ledger(paths.ledger)
    for batch, brought in (("site-3", [first, second]), ("site-4", [gone])):
        table = pd.DataFrame(brought)
        arrival = Arrival(batch, "site", "d" * 64, batch, "", n_files=2, images=table)
        ledger.begin(arrival, "accepted", f"data/raw/site/{batch}", [])
        ledger.decide(batch, "accepted")
    ledger.begin_withdrawal("site-4", "data/quarantine/site-4", ["labels mixed up"])
    ledger.decide("site-4", "withdrawn")
    ids = {"anna": adult, "carl": first, "gina": gone}
    base = [(adult["image_id"], "site/anna", "train", "train")]
    later = [
        (first["image_id"], "site/carl", "finetune", "train"),
        (gone["image_id"], "site/gina", "finetune", "validation"),
    ]
    judged = [(tested["image_id"], "site/tom")]
    folders = {
        1: model(tmp_path / "one", base, judged),
        2: model(tmp_path / "two", [*base, *later], judged),
    }
    known = [
        Version(1, "aaaaaaaaaaaa", "r1", ("previous",), {}, datetime.now(UTC)),
        Version(2, "bbbbbbbbbbbb", "r2", ("champion",), {}, datetime.now(UTC)),
    ]
    monkeypatch.setattr(registry, "versions", lambda _: known)
    monkeypatch.setattr(registry, "fetch", lambda _, number: folders[number])
    return paths, {name: str(row["image_id"]) for name, row in ids.items()}


def test_a_person_is_followed_into_every_model(project):
    paths, _ = project
    lines = lineage_lines(paths, "site/carl")
    assert lines == lineage_lines(paths, "carl")
    text = "\n".join(lines)
    assert "2 pictures of 1 person" in text and "came in batch site-3" in text
    assert "version 1 (aaaaaaaaaaaa, previous): saw none of them" in text
    assert "version 2 (bbbbbbbbbbbb, champion): saw 1 of 2 (fine-tuned on 1)" in text


def test_a_image_is_known_by_id_file_and_path(project):
    paths, ids = project
    file = paths.raw / "site/site-3/c1.jpg"
    answers = [lineage_lines(paths, what) for what in (ids["carl"], str(file), sha256_of(file))]
    assert answers[0] == answers[1] == answers[2]
    assert answers[0][1:] == lineage_lines(paths, "site/site-3/c1.jpg")[1:]
    other = lineage_lines(paths, "site/site-3/c2.jpg")
    assert "saw none of them (saw 1 other picture of the same people)" in "\n".join(other)
    tested = "\n".join(lineage_lines(paths, "site/tom"))
    assert tested.count("saw none of them (judged on 1)") == 2 and "test split" in tested


def test_a_withdrawn_child_is_still_told_of(project):
    paths, _ = project
    text = "\n".join(lineage_lines(paths, "site/gina"))
    assert "data/quarantine/site-4 (withdrawn)" in text
    assert "version 2 (bbbbbbbbbbbb, champion): saw 1 of 1" in text


def test_a_version_says_whom_it_saw_and_writes_it_down(project, tmp_path):
    paths, ids = project
    out = tmp_path / "seen.csv"
    lines = lineage_lines(paths, "2", out)
    assert lines == [*lineage_lines(paths, "bbbbbbbbbbbb"), f"  {out}"]
    text = "\n".join(lines)
    assert "saw 3 pictures of 3 people" in text
    assert "child, female as recorded: 2 pictures of 2 people" in text
    assert "batch site-4: 1 picture of 1 person" in text
    assert "not in data/raw any more: 1 picture" in text
    assert "judged on 1 pictures of 1 other people" in text
    written = pd.read_csv(out, dtype="str")
    assert set(written["image_id"]) == set(ids.values())
    assert dict(zip(written["image_id"], written["role"], strict=True))[ids["gina"]] == "validation"


def test_a_batch_lists_its_images_and_what_became_of_them(project, tmp_path):
    paths, _ = project
    out = tmp_path / "batch.csv"
    text = "\n".join(lineage_lines(paths, "site-3", out))
    assert "2 pictures of 1 person" in text and "version 2" in text
    assert len(pd.read_csv(out)) == 2


def test_a_version_whose_files_are_lost_hides_no_other(project, tmp_path, monkeypatch):
    paths, _ = project
    at = registry.fetch

    def fetch(paths: Paths, number: int) -> Path:
        if number == 1:
            raise ModelError("version 1: the store has lost its files")
        return at(paths, number)

    monkeypatch.setattr(registry, "fetch", fetch)
    lost = "version 1 (aaaaaaaaaaaa, previous)"
    lines = lineage_lines(paths, "site/carl", tmp_path / "out.csv")
    assert f"  {lost}: its files cannot be read: not known whom it saw" in lines
    assert "version 2 (bbbbbbbbbbbb, champion): saw 1 of 2" in "\n".join(lines)
    assert lineage_lines(paths, "1", tmp_path / "one.csv")[:2] == [
        lost,
        "  its files cannot be read: not known whom it saw",
    ]


def take_in_whole(paths: Paths, batch: str, rows: list[dict[str, object]]) -> None:
    ledger = Ledger(paths.ledger)
    arrival = Arrival(batch, "mine", batch, "", "", n_files=2, images=pd.DataFrame(rows))
    ledger.begin(arrival, "accepted", "data/raw/mine", [])
    ledger.decide(batch, "accepted")


def remove_whole(paths: Paths, batch: str) -> None:
    ledger = Ledger(paths.ledger)
    ledger.begin_withdrawal(batch, f"data/quarantine/{batch}", ["mixed up"])
    ledger.decide(batch, "withdrawn")


def test_a_image_of_a_whole_data_set_is_one(project, tmp_path):
    """The run has no batch for it, the ledger a name; withdrawn, it was not moved anywhere."""
    paths, _ = project
    mine = [{**image(paths, n, "mia", "child"), "dataset": "mine"} for n in ("m1", "m2")]
    rows = pd.concat([pd.read_parquet(paths.manifest), pd.DataFrame(mine)])
    write_table(rows, paths.manifest, MANIFEST_SCHEMA)
    take_in_whole(paths, "mine", mine)
    out = tmp_path / "mine.csv"
    text = "\n".join(lineage_lines(paths, "site/mia", out))
    assert "2 pictures of 1 person" in text and text.count("came in batch mine") == 2
    assert len(pd.read_csv(out)) == 2
    assert lineage_lines(paths, "mine")[1:] == lineage_lines(paths, "site/mia")[1:]
    remove_whole(paths, "mine")
    gone = "removed from data/raw by hand, its reason in data/quarantine/mine (withdrawn)"
    assert "\n".join(lineage_lines(paths, "site/mia")).count(gone) == 2
    take_in_whole(paths, "mine.2", mine)  # the same pictures once more
    text = "\n".join(lineage_lines(paths, "site/mia"))
    assert "2 pictures of 1 person" in text and text.count("came in batch mine.2") == 2


def test_only_the_images_asked_for_are_looked_for(project, monkeypatch):
    paths, _ = project
    asked: list[str] = []
    whole = Path.is_file

    def counting(path: Path) -> bool:
        if path.is_relative_to(paths.raw):
            asked.append(path.name)
        return whole(path)

    monkeypatch.setattr(Path, "is_file", counting)
    lineage_lines(paths, "site/carl")
    assert sorted(asked) == ["c1.jpg", "c2.jpg"]
    asked.clear()
    lineage_lines(paths, "1")
    assert asked == ["a.jpg"]


def test_of_a_version_that_is_here_only_two_tables_are_read(project, monkeypatch):
    paths, _ = project
    here = paths.work("registry", "2")
    shutil.copytree(registry.fetch(paths, 2), here)
    (here / "weights.safetensors").write_bytes(b"long")
    listed = version_artifacts.list_files(here)
    (here / "weights.safetensors").write_bytes(b"damaged: whom it saw is known all the same")
    tags = {version_artifacts.FILES: listed}
    known = [Version(2, "bbbbbbbbbbbb", "r2", (), tags, datetime.now(UTC))]
    fetched: list[int] = []
    at = registry.fetch
    monkeypatch.setattr(registry, "versions", lambda _: known)
    monkeypatch.setattr(registry, "fetch", lambda p, n: fetched.append(n) or at(p, n))
    lines = lineage_lines(paths, "site/gina")
    assert "saw 1 of 1" in "\n".join(lines) and fetched == []
    (here / "seen.csv").write_text("image_id,subject_id,stage,role\n")
    assert lineage_lines(paths, "site/gina") == lines and fetched == [2]
    monkeypatch.setattr(registry, "versions", lambda _: [replace(known[0], tags={})])
    assert lineage_lines(paths, "site/gina") == lines and fetched == [2, 2]


def test_where_nothing_was_taken_in_yet_an_unknown_name_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no picture, person"):
        lineage_lines(Paths(tmp_path), "nobody")


def test_an_unknown_name_is_one_line(project, tmp_path):
    paths, _ = project
    (tmp_path / "new.jpg").write_bytes(b"never imported")
    for what, said in (
        ("nobody", "no picture, person"),
        (str(tmp_path / "new.jpg"), "never imported"),
    ):
        with pytest.raises(UserError, match=said):
            lineage_lines(paths, what)
