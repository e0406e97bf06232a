"""One person is one person: across spellings, and in what earlier versions wrote."""

import random
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest
from spellings import nfd, random_id, respelled

from flows.ledger.ledger import Arrival, Ledger
from flows.lineage.lineage import lineage_lines
from flows.pipeline.flow import moved_splits_note
from flows.presets import preset_text
from flows.process_env import clean_arguments
from flows.registry import gate_inputs
from tasks.core.errors import UserError
from tasks.core.models.checkpoint import SEEN_COLUMNS
from tasks.core.paths import Paths
from tasks.core.tables import MANIFEST_SCHEMA, read_table_as_written, write_csv, write_table
from tasks.register import registry
from tasks.register.version_artifacts import FILES, list_files
from tasks.register.versions import Version

PRESET = Path(__file__).parents[2] / "presets/quick.yaml"


def row(number: int, subject: str, batch: str = "") -> dict[str, object]:
    sha256 = f"{number:064x}"
    path = "/".join(filter(None, ("site", batch, f"{number}.png")))
    return dict.fromkeys(MANIFEST_SCHEMA.names) | {
        "image_id": sha256[-16:],
        "sha256": sha256,
        "path": path,
        "dataset": "site",
        "batch": batch,
        "subject_id": f"site/{subject}",
        "subject_known": True,
        "emotion": "anger",
        "age_band": "child",
        "gender": "female",
    }


def registered(monkeypatch, paths: Paths, seen: list[dict[str, object]], part: str) -> Path:
    """Register a version that saw these pictures; its files are those of when it was made."""
    folder = paths.work("registry", "1")
    rows = [(one["image_id"], one["subject_id"], part, "train") for one in seen]
    write_csv(pd.DataFrame(rows, columns=list(SEEN_COLUMNS)), folder / "seen.csv")
    test = pd.DataFrame({"image_id": [], "subject_id": []})
    write_csv(test, folder / "test.csv")
    tags = {FILES: list_files(folder)}
    version = Version(1, "aaaaaaaaaaaa", "r1", ("champion",), tags, datetime.now(UTC))
    monkeypatch.setattr(registry, "versions", lambda _: [version])
    return folder


def accepted(paths: Paths, batch: str, rows: list[dict[str, object]]) -> Ledger:
    ledger = Ledger(paths.ledger)
    table = pd.DataFrame(rows)
    arrival = Arrival(batch, "site", "d" * 64, batch, "", len(rows), table)
    ledger.begin(arrival, "accepted", f"data/raw/site/{batch}", [])
    ledger.decide(batch, "accepted")
    return ledger


def test_a_model_of_before_is_known_to_have_seen_a_child(tmp_path, monkeypatch):
    """A ledger and a registered version that name the child as a Mac spells it, and one NA."""
    paths = Paths(tmp_path)
    old = [row(1, nfd("김민수"), "a"), row(2, "NA", "a"), row(3, "NA", "a")]
    ledger = accepted(paths, "a", old)
    ledger_bytes = paths.ledger.read_bytes()
    model = registered(monkeypatch, paths, old, "finetune")
    digest = list_files(model)
    new = row(4, "김민수", "b")  # a later picture of the child, spelled as `ingest` does now
    write_table(pd.DataFrame([new]), paths.manifest, MANIFEST_SCHEMA)

    for what in ("김민수", nfd("site/김민수"), "site/김\u200b민수\u00a0"):
        lines = lineage_lines(paths, what)
        assert lines[0] == "person site/김민수"
        assert "2 pictures of 1 person" in lines[1]
        assert "version 1 (aaaaaaaaaaaa, champion): saw 1 of 2 (fine-tuned on 1)" in lines[-1]
    image = "\n".join(lineage_lines(paths, str(new["image_id"])))
    assert "saw none of them (saw 1 other picture of the same people)" in image
    with pytest.raises(UserError, match="no picture, person, batch"):
        lineage_lines(paths, "NA")
    nobody = "\n".join(lineage_lines(paths, str(old[1]["image_id"])))
    assert "1 picture of 1 person" in nobody and "saw 1 of 1" in nobody

    assert "site/김민수" in set(ledger.images()["subject_id"])
    assert paths.ledger.read_bytes() == ledger_bytes  # it only grows, and its digests hold
    assert list_files(model) == digest


def test_a_child_that_a_pass_trained_with_is_no_new_child(tmp_path):
    paths = Paths(tmp_path)
    ledger = accepted(paths, "a", [row(1, nfd("김민수")), row(2, "S1"), row(3, "nan"), row(4, "-")])
    ledger.mark_trained(["a"], 1, "digest")
    own = {f"site/{number:016x}" for number in (3, 4)}
    assert ledger.trained_people() == {"site/김민수", "site/S1"} | own


def test_lineage_answers_as_for_the_clean_spelling(tmp_path, monkeypatch):
    rng = random.Random(8)
    paths = Paths(tmp_path)
    names = sorted({random_id(rng) for _ in range(12)})
    rows = [
        row(2 * number + copy, respelled(rng, name), "a")
        for number, name in enumerate(names)
        for copy in range(2)
    ]
    accepted(paths, "a", rows)
    registered(monkeypatch, paths, rows[::3], "train")
    for name in names:
        lines = lineage_lines(paths, f"site/{name}")
        assert lines[0] == f"person site/{name}" and "2 pictures of 1 person" in lines[1]
        assert ("saw 1 of 2" in lines[-1]) or ("saw none" in lines[-1])
        assert lineage_lines(paths, f"site/{respelled(rng, name)}") == lines


def test_a_path_is_found_in_either_spelling_and_its_bytes_stay(tmp_path, monkeypatch):
    paths = Paths(tmp_path)
    twins = [row(1, "S1") | {"path": "site/각.png"}, row(2, "S2") | {"path": nfd("site/각.png")}]
    other = row(3, "S3") | {"path": nfd("site/닭.png")}
    write_table(pd.DataFrame([*twins, other]), paths.manifest, MANIFEST_SCHEMA)
    monkeypatch.setattr(registry, "versions", lambda _: [])
    assert "1 picture of" in lineage_lines(paths, "site/닭.png")[1]
    assert "1 picture of" in lineage_lines(paths, nfd("site/각.png"))[1]  # as it is on the disk
    assert "2 pictures of" in lineage_lines(paths, "site/각.png\u200b")[1]  # either may be meant


def test_splits_that_move_are_said_before_the_run_that_moves_them(tmp_path):
    paths = Paths(tmp_path)
    paths.params.write_text(preset_text(PRESET.parents[1], PRESET), encoding="utf-8")
    assert moved_splits_note(paths) == ""
    old = [row(number, nfd(f"아이{number}")) for number in range(8)]
    old += [row(number, "NA") for number in range(8, 16)]
    today = [row(number, f"S{number}") for number in range(16, 40)]
    table = pd.DataFrame([*old, *today]).assign(split="test")
    write_table(table, paths.split, MANIFEST_SCHEMA)
    note = moved_splits_note(paths)
    assert note.startswith("9 ids are now read in one spelling per person")
    moved, trained = (int(word) for word in note.split() if word.isdecimal() and word != "9")
    assert 0 < trained < moved < 16
    write_table(table.iloc[len(old) :], paths.split, MANIFEST_SCHEMA)
    assert moved_splits_note(paths) == ""  # S16 and the like keep their split, whatever it was
    assert len(read_table_as_written(paths.split)) == len(today)


def test_arguments_are_spelled_as_ids_are_and_paths_as_on_disk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = nfd("사진")
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "a.png").touch()
    given = {
        nfd("김민수"): "김민수",
        "site/김\u200b민수 ": "site/김민수",
        f"--why={nfd('각')}\u00a0": "--why=각",
        "--dataset=mine": "--dataset=mine",
        f"{folder}/a.png": f"{folder}/a.png",
        f"--out={folder}/{nfd('각')}.csv": f"--out={folder}/각.csv",
        str(tmp_path / folder): str(tmp_path / folder),
        "http://127.0.0.1//x": "http://127.0.0.1//x",
        "": "",
    }
    assert clean_arguments(list(given)) == list(given.values())


def test_people_of_a_frozen_test_who_move_to_training_are_not_frozen(tmp_path, monkeypatch):
    """Else every challenger would be refused for having been trained on people of the test."""
    paths = Paths(tmp_path)
    old = [row(1, nfd("각")), row(2, nfd("닭")), row(3, "NA"), row(4, "S4"), row(5, "NA")]
    folder = tmp_path / "one"
    write_csv(pd.DataFrame(old)[["image_id", "subject_id"]], folder / "test.csv")
    monkeypatch.setattr(gate_inputs, "fetch", lambda paths, number: folder)
    now = [row(1, "각"), row(2, "닭"), row(3, f"{3:016x}"), row(4, "S4"), row(5, f"{5:016x}")]
    parts = ["train", "test", "validation", "train", "test"]
    champion = Version(1, "aaaaaaaaaaaa", "r1", (), {}, datetime.now(UTC))
    frozen = gate_inputs._frozen_images(paths, champion, pd.DataFrame(now).assign(split=parts))
    # Of S4, whose id did not change, the rule on people not trained on is to speak.
    assert frozen.tolist() == [old[number]["image_id"] for number in (1, 3, 4)]
