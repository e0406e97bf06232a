"""`affectgap promote` on a project with small models: decided, written down, approved, in use.

The registry is a stand-in (tests/register has the real one); everything else is what users get.
"""

import copy
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from batches import draw_batch
from gate_world import USUAL, images, rule
from made_up_model import compact_spec

from flows.daemon import status
from flows.ledger.ledger import Ledger
from flows.registry import gate_inputs, promotion
from flows.retraining import training_flow
from tasks.core.errors import AffectGapError, ModelError, UserError
from tasks.core.files import alone
from tasks.core.imaging.shards import encode_png, read_crops, write_shards
from tasks.core.models.backbones import build_module
from tasks.core.models.checkpoint import SEEN_COLUMNS, load_spec, save_model
from tasks.core.models.predictor import EmotionClassifier
from tasks.core.paths import Paths
from tasks.core.tables import write_table
from tasks.crop.settings import CropSettings
from tasks.draw.plan import plan_images
from tasks.gate.compare import named_groups
from tasks.gate.decision import read_decision
from tasks.gate.families import is_enough, size_of
from tasks.gate.score import Scores, score
from tasks.gate.settings import Params as GateParams
from tasks.register import registry
from tasks.register.promotion_log import append_record, read_records
from tasks.register.version_artifacts import TEST
from tasks.register.versions import Version
from tasks.split.subject_split import assign_splits

REPOSITORY = Path(__file__).parents[2]
PLACE = ["shard", "offset_bytes", "size_bytes"]
LABELS = ("anger", "disgust", "fear", "happiness")
CROP = {"size_px": 32, "margin": 0.25, "resample": "bilinear", "detector_side_px": 160}
CROP |= {"max_upsamples": 1, "min_score": 0.0}
WIDE = {"overall": 0.03, "group": 0.05, "calibration": 0.02, "robustness": 0.9}
FLOORS = {"overall": 0.5, "worst_group": 0.3, "calibration": 2.0, "robustness": 1.0}


class Shelf:
    """Versions by number, and which is what; stands in for the registry."""

    def __init__(self, root: Path) -> None:
        self.root, self.entries, self.tags = root, {}, {}
        self.in_use: int | None = None
        self.new: int | None = None

    def add(self, module, seen=("set/trained",)) -> int:
        number = len(self.entries) + 1
        folder = self.root / f"shelf/{number}"
        spec = compact_spec(LABELS)
        ids = pd.DataFrame({name: list(seen) for name in SEEN_COLUMNS})
        digest = save_model(folder, module, spec, ids).version
        (folder / "crop.json").write_text(json.dumps(CROP))
        split = pd.read_parquet(self.root / "data/split.parquet")
        split[split["split"] == "test"][["image_id"]].to_csv(folder / TEST, index=False)
        when = datetime(2026, 1, 1, tzinfo=UTC)
        self.entries[number] = Version(number, digest, f"run-{number}", (), {}, when)
        self.new = number
        return number

    def find(self, paths, number):
        if number not in self.entries:
            raise ModelError(f"no version {number}")
        return self.entries[number]

    def assert_rival(self, paths, number, instead_of):
        if number != self.in_use != instead_of:
            raise AffectGapError(f"compared with {instead_of}, in use is {self.in_use}")

    def promote(self, paths, number, instead_of, decision_id):
        self.assert_rival(paths, number, instead_of)
        self.in_use = number
        assert decision_id in set(read_records(paths)["decision_id"])


@pytest.fixture(scope="module")
def networks():
    """A network, one that answers a little otherwise, and one that answers quite otherwise."""
    torch.manual_seed(2)
    first = build_module("compact", len(LABELS), 3, 32)
    other = build_module("compact", len(LABELS), 3, 32)
    alike = copy.deepcopy(first)
    with torch.no_grad():
        next(alike.parameters()).mul_(1.0001)
    return {"first": first, "alike": alike, "other": other}


@pytest.fixture(scope="module")
def asked_once():
    """Ask each network once about each picture: every test has the same."""
    known = {}

    def ask(folder, table, shards, params):
        digest = load_spec(folder).version
        before = known.get(digest)
        new = table if before is None else table[~table["image_id"].isin(before.table["image_id"])]
        if before is None or len(new):
            found = score(folder, new, shards, params)
            rows = [found.table] if before is None else [before.table, found.table]
            known[digest] = Scores(found.labels, pd.concat(rows, ignore_index=True))
        own = known[digest].table
        return Scores(known[digest].labels, own[own["image_id"].isin(table["image_id"])])

    return ask


@pytest.fixture
def shelf(tmp_path, networks, asked_once, monkeypatch):
    """A project whose pictures are labelled as the first network reads them, and its versions."""
    root = tmp_path
    table = images(people=3, each=8)
    crops = np.random.default_rng(1).integers(0, 256, (len(table), 32, 32, 3), dtype=np.uint8)
    crops = crops // 4 + np.random.default_rng(2).integers(0, 190, (len(table), 1, 1, 3))
    crops = crops.astype(np.uint8)
    Paths(root).crop_shards.mkdir(parents=True)
    members = [
        (f"{one}.png", encode_png(c)) for one, c in zip(table["image_id"], crops, strict=True)
    ]
    places = list(write_shards(members, Paths(root).crop_shards, 1000))
    for name in PLACE:
        table[name] = [getattr(place, name) for place in places]
    Paths(root).crop_settings.write_text(json.dumps(CROP))
    write_table(table, Paths(root).split)
    shelf = Shelf(root)
    shelf.add(networks["first"])
    answers = EmotionClassifier.load(root / "shelf/1", "cpu").predict(crops).argmax(axis=1)
    table = table.assign(emotion=np.array(LABELS)[answers])
    write_table(table, Paths(root).split)
    files = table.assign(path=table["image_id"] + ".png", width_px=32, height_px=32)
    write_table(files.drop(columns=[*PLACE, "split"]), Paths(root).manifest)
    content = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    content["promote"] = USUAL | {
        "batch_size": 32,
        "min_subjects": 2,
        "margins": WIDE,
        "absolute_limits": FLOORS,
    }
    content["retrain"]["commit"] = False
    content["crop"] |= {**CROP, "workers": 1}
    (root / "params.yaml").write_text(yaml.safe_dump(content))
    for name, stand_in in {
        "champion": lambda paths: shelf.entries.get(shelf.in_use),
        "challenger": lambda paths: shelf.entries.get(shelf.new),
        "find_version": shelf.find,
        "versions": lambda paths: list(shelf.entries.values()),
        "finish_move": lambda paths: "",
        "promote": shelf.promote,
        "assert_rival": shelf.assert_rival,
        "set_tags": lambda paths, number, tags: shelf.tags.setdefault(number, {}).update(tags),
    }.items():
        monkeypatch.setattr(registry, name, stand_in)
    monkeypatch.setattr(gate_inputs, "score", asked_once)
    monkeypatch.setattr(gate_inputs, "fetch", lambda paths, number: root / f"shelf/{number}")
    return shelf


def set_params(shelf, **changed):
    path = shelf.root / "params.yaml"
    content = yaml.safe_load(path.read_text())
    content["promote"] |= changed
    path.write_text(yaml.safe_dump(content))


def actions(shelf):
    records = read_records(Paths(shelf.root))
    return list(zip(records["version"].astype(int), records["action"], strict=True))


def test_the_first_is_promoted_one_alike_too_and_another_is_refused(shelf, networks):
    paths = Paths(shelf.root)
    lines = promotion.promote_command(paths, None, "", "")
    assert shelf.in_use == 1 and lines[0] == "version 1: promoted"
    again = shelf.add(networks["alike"])
    promotion.promote_command(paths, None, "A. Weber", "new weights")
    assert shelf.in_use == again == 2

    shelf.add(networks["other"])
    lines = promotion.promote_command(paths, None, "", "")
    assert shelf.in_use == 2
    assert any("Recall of child (as recorded) is 0.0" in line for line in lines)
    assert actions(shelf) == [(1, "promoted"), (2, "promoted"), (3, "refused")]
    records = read_records(paths)
    assert list(records["previous"]) == ["", "1", "2"]
    assert records["by"][1] == "A. Weber" and "Overall recall fell" in records["why"][2]
    decision = read_decision(paths.decision(3) / "decision.json")
    assert decision.champion.run_id == "run-2" and not decision.passed
    assert shelf.tags[3]["decision_id"] == decision.decision_id == records["decision_id"][2]
    assert shelf.tags[3]["worst_group"] == decision.worst_group != ""
    assert (shelf.tags[3]["worst_n"], shelf.tags[3]["worst_people"]) == ("48", "6")
    limits = [float(shelf.tags[3][f"worst_{name}"]) for name in ("low", "recall", "high")]
    assert limits == sorted(limits) and limits[0] < limits[2]  # six people: a wide interval
    with pytest.raises(UserError, match="version 3 did not pass the gate: Overall recall fell"):
        promotion.promote_command(paths, 3, "A. Weber", "never mind")
    assert shelf.in_use == 2

    before = {file: file.read_bytes() for file in paths.registry.rglob("*.*")}
    promotion.promote_command(paths, None, "", "")  # judged once more: the same bytes, no new line
    assert before == {file: file.read_bytes() for file in paths.registry.rglob("*.*")}


def test_every_decision_about_a_version_is_kept_with_its_reasons(shelf, networks):
    paths = Paths(shelf.root)
    promotion.promote_command(paths, None, "", "")
    shelf.add(networks["other"])
    promotion.promote_command(paths, None, "A. Weber", "tried once more")
    set_params(shelf, seed=8)
    promotion.promote_command(paths, None, "", "")
    records = read_records(paths).iloc[1:]
    assert "Overall recall fell" in records["why"].iloc[0]
    assert records["why"].iloc[0].endswith("tried once more")
    for name in records["decision_id"]:
        assert read_decision(paths.decision(2) / f"{name}.json").decision_id == name
        assert (paths.decision(2) / f"{name}.html").is_file()
    assert records["decision_id"].nunique() == 2
    latest = read_decision(paths.decision(2) / "decision.json")
    assert latest.decision_id == records["decision_id"].iloc[1]


def test_new_settings_do_not_choose_the_frozen_images(shelf, networks, monkeypatch):
    """The run of version 2 leaves out every girl: both models are asked about the girls all the
    same, and what they have no face for is read wrong; so it is for the version after."""
    paths = Paths(shelf.root)
    promotion.promote_command(paths, None, "", "")
    split = pd.read_parquet(paths.split)
    girls = (split["age_band"] == "child") & (split["gender"] == "female")
    write_table(split[~girls], paths.split)
    shelf.add(networks["alike"])
    refused = promotion.judge_challenger(paths)  # nothing lies in data/raw: no face is found
    row = rule(refused, "group recall", "child × female")
    assert (row["n"], row["challenger"]) == (24, 0) and not refused.passed
    assert refused.counts["read wrong: no face found by the challenger"] == 24

    own = split[girls]
    monkeypatch.setattr(
        gate_inputs, "_extra_crops", lambda paths, settings, table: (own, paths.crop_shards)
    )
    promotion.promote_command(paths, None, "", "")
    assert shelf.in_use == 2
    shelf.add(networks["other"])
    manifest = pd.read_parquet(paths.manifest)
    write_table(manifest[manifest["image_id"] != own["image_id"].iloc[0]], paths.manifest)
    monkeypatch.setattr(
        gate_inputs,
        "_extra_crops",
        lambda paths, settings, table: (own.iloc[1:], paths.crop_shards),
    )
    later = promotion.judge_challenger(paths)
    assert rule(later, "group recall", "child × female")["n"] == 23
    assert later.counts["frozen pictures that are no longer there"] == 1  # withdrawn, say
    best = later.table[later.table["rule"] == "against the best ever"]
    assert set(best["group"]) == {"adult", "child"} and not later.passed
    assert best["note"].str.contains("version 1").all()


def test_a_version_waits_for_approval_with_name_and_reason(shelf, networks):
    paths = Paths(shelf.root)
    promotion.promote_command(paths, None, "", "")
    set_params(shelf, require_approval=True)
    shelf.add(networks["alike"])
    lines = promotion.promote_command(paths, None, "", "")
    assert shelf.in_use == 1 and any("--approve 2" in line for line in lines)
    with pytest.raises(UserError, match="--by NAME"):
        promotion.promote_command(paths, 2, "", "because")
    with pytest.raises(UserError, match="no version 9"):
        promotion.promote_command(paths, 9, "A. Weber", "because")
    promotion.promote_command(paths, 2, "A. Weber", "table read")
    assert shelf.in_use == 2
    assert actions(shelf) == [(1, "promoted"), (2, "waiting"), (2, "approved")]
    last = read_records(paths).iloc[-1]
    assert (last["by"], last["why"]) == ("A. Weber", "table read")
    assert "in use already" in promotion.promote_command(paths, 2, "A. Weber", "twice")[0]
    assert (
        promotion.judge_challenger(paths).challenger.version == 2
    )  # the decision that let it through


def test_where_no_group_can_be_judged_a_person_decides(shelf, networks):
    paths = Paths(shelf.root)
    promotion.promote_command(paths, None, "", "")
    set_params(shelf, min_n=60)
    shelf.add(networks["alike"])
    assert shelf.tags[1]["not_judged"] == "2 of 10 groups: infant × female, infant"
    lines = promotion.promote_command(paths, None, "", "")
    assert shelf.tags[2]["not_judged"].startswith("10 of 10 groups: ")
    assert "adult × female" in shelf.tags[2]["not_judged"]
    assert shelf.in_use == 1
    assert any("has enough test people to tell whether" in line for line in lines)
    assert any("waits for a person: Whether child (finetune.subset and" in line for line in lines)
    page = (paths.decision(2) / "decision.html").read_text()
    assert "waits for approval by a person" in page and "Whether child (finetune.subset" in page
    assert "<h1>Version 2 waits for a person</h1>" in page
    promotion.promote_command(paths, 2, "A. Weber", "looked at the pictures")
    assert shelf.in_use == 2


def test_a_pass_judges_its_own_version_not_what_another_clone_registered_since(shelf, networks):
    paths = Paths(shelf.root)
    promotion.promote_command(paths, None, "", "")
    own = shelf.add(networks["other"])
    shelf.add(networks["alike"])  # by another clone with the same store: it has the alias now
    said = SimpleNamespace(say=lambda line: None)
    steps = training_flow._Steps(paths, 1, "a test", SimpleNamespace(), said)
    action, lines = steps._judge(shelf.find(paths, own))
    assert action == "refused" and lines[0] == f"version {own} is refused:"
    assert actions(shelf)[-1] == (own, "refused")


def test_a_first_model_of_which_no_group_can_be_judged_waits_for_a_person_too(shelf, monkeypatch):
    """Held to the floors alone, it would come into use with the worst group's left out."""
    paths = Paths(shelf.root)
    set_params(shelf, min_n=60)
    lines = promotion.promote_command(paths, None, "", "")
    assert lines[0] == "version 1: waiting" and shelf.in_use is None
    assert any("has enough test people to tell whether" in line for line in lines)
    page = (paths.decision(1) / "decision.html").read_text()
    assert "<h1>Version 1 waits for a person</h1>" in page and "the first, may be used" not in page
    monkeypatch.setattr(registry, "previous", lambda paths: None)
    in_use, waiting, how = status._model_in_use(paths)
    assert in_use == "in use       no model yet"
    assert waiting.startswith(
        "waiting      version 1 waits for a person: No group named in promote"
    )
    assert (
        "Whether child (finetune.subset and retrain.child_age_bands) is harmed cannot be told"
        in waiting
    )
    assert "affectgap promote --approve 1" in how
    promotion.promote_command(paths, 1, "A. Weber", "looked at the pictures")
    assert shelf.in_use == 1 and actions(shelf) == [(1, "waiting"), (1, "approved")]


def test_the_children_of_the_drawn_cohort_can_be_judged():
    content = yaml.safe_load((REPOSITORY / "presets/default.yaml").read_text())
    draw, split, gate_params = (content[name] for name in ("draw", "split", "promote"))
    sittings = plan_images(draw["subjects"], draw["emotions"], draw["images_per_emotion"])
    people = [(f"drawn/{one.name.subject}", one.cohort, one.name.gender) for one in sittings]
    table = pd.DataFrame(people, columns=["subject_id", "age_band", "gender"])
    known = table.assign(image_id=table["subject_id"], subject_known=True)
    test = table[assign_splits(known, split["seed"], True, split["ratios"]) == "test"]
    needed = {"finetune.subset": content["finetune"]["subset"]}
    named = named_groups(gate_params["protected"], needed)
    params = GateParams.model_validate({**gate_params, "device": "cpu"})
    large = {
        one.name for one in named if is_enough(size_of(test["subject_id"][one.rows(test)]), params)
    }
    assert large == {"child", "adolescent", "adult"}


def test_an_approval_is_void_once_another_model_is_in_use(shelf, networks):
    paths = Paths(shelf.root)
    promotion.promote_command(paths, None, "", "")
    set_params(shelf, require_approval=True)
    for _ in range(2):
        shelf.add(networks["alike"])
        promotion.promote_command(paths, None, "", "")
    promotion.promote_command(paths, 3, "A. Weber", "the newer one")
    with pytest.raises(UserError, match="judged against version 1, but version 3 is in use now"):
        promotion.promote_command(paths, 2, "A. Weber", "too late")
    assert shelf.in_use == 3


def test_what_was_rolled_back_comes_back_by_approval_alone(shelf, networks):
    paths = Paths(shelf.root)
    promotion.promote_command(paths, None, "", "")
    shelf.add(networks["alike"])
    promotion.promote_command(paths, None, "", "")

    def roll_back(name):
        shelf.in_use = 1
        row = {"action": "rolled_back", "version": 1, "previous": 2, "decision_id": name}
        append_record(paths, row)

    roll_back("rollback-a")
    with pytest.raises(UserError, match="taken out of use by a rollback"):
        promotion.promote_command(paths, None, "", "")
    promotion.promote_command(paths, 2, "A. Weber", "complaint was about the camera")
    assert shelf.in_use == 2
    roll_back("rollback-b")
    promotion.promote_command(paths, 2, "A. Weber", "and again")
    assert shelf.in_use == 2
    assert [action for _, action in actions(shelf)].count("approved") == 2


def test_weights_that_were_rolled_back_do_not_come_back_as_another_version(shelf, networks):
    paths = Paths(shelf.root)
    promotion.promote_command(paths, None, "", "")
    shelf.add(networks["alike"])
    promotion.promote_command(paths, None, "", "")
    shelf.in_use = 1
    row = {"action": "rolled_back", "version": 1, "previous": 2, "decision_id": "rollback-a"}
    append_record(paths, row)
    shelf.add(networks["alike"], seen=("set/trained", "set/another"))
    assert shelf.entries[3].digest == shelf.entries[2].digest
    assert training_flow._was_left(paths, shelf.entries[3])
    with pytest.raises(UserError, match="taken out of use by a rollback"):
        promotion.promote_command(paths, None, "", "")
    shelf.add(networks["first"])  # what was gone back to may come again
    assert not training_flow._was_left(paths, shelf.entries[4])
    row = {"action": "rolled_back", "version": 1, "previous": 4, "decision_id": "rollback-b"}
    same = {"digest": shelf.entries[1].digest}  # from these weights to the same as version 1
    append_record(paths, {"action": "approved", "version": 4, "decision_id": "a", **same})
    append_record(paths, row | same)
    assert training_flow._was_left(paths, shelf.entries[4])
    assert not training_flow._was_left(paths, shelf.entries[1])
    shelf.add(networks["first"], seen=("set/trained", "set/third"))
    assert not training_flow._was_left(paths, shelf.entries[5])


def test_what_saw_a_withdrawn_batch_is_neither_judged_nor_approved(shelf, networks, monkeypatch):
    paths = Paths(shelf.root)
    promotion.promote_command(paths, None, "", "")
    set_params(shelf, require_approval=True)
    shelf.add(networks["alike"])
    promotion.promote_command(paths, None, "", "")
    monkeypatch.setattr(promotion, "withdrawn_batches", lambda paths, version: ["site-3"])
    for approved in (None, 2):
        with pytest.raises(UserError, match=r"withdrawn now \(site-3\)"):
            promotion.promote_command(paths, approved, "A. Weber", "table read")
    assert shelf.in_use == 1


def test_what_was_let_through_and_not_put_into_use_is_judged_anew(shelf, networks, monkeypatch):
    paths = Paths(shelf.root)
    promotion.promote_command(paths, None, "", "")
    shelf.add(networks["alike"])
    promotion.record_decision(paths, promotion.judge_challenger(paths))
    digest = shelf.entries[1].digest
    row = {"action": "not_made", "version": 1, "digest": digest, "previous": 2}
    append_record(paths, {**row, "decision_id": "not-made"})
    promotion.promote_command(paths, None, "", "")  # the same decision: another line
    assert shelf.in_use == 2
    assert actions(shelf)[1:] == [(2, "promoted"), (1, "not_made"), (2, "promoted")]
    # What a kill left is finished before anything is judged.
    monkeypatch.setattr(promotion, "complete_promotion", lambda paths: ["finished: a move"])
    assert promotion.promote_command(paths, None, "", "")[0] == "finished: a move"


def test_in_another_store_no_model_counts_as_the_first(shelf, networks):
    paths = Paths(shelf.root)
    shelf.add(networks["alike"])
    row = {"action": "promoted", "version": 7, "digest": "there", "decision_id": "a"}
    append_record(paths, row)
    with pytest.raises(UserError, match=r"says version 7 is in use, this store has none: set ML"):
        promotion.promote_command(paths, None, "", "")
    assert shelf.in_use is None and len(actions(shelf)) == 1
    append_record(paths, {**row, "version": 1, "decision_id": "b"})  # the number is there: not it
    with pytest.raises(UserError, match="says version 1 is in use"):
        promotion.judge_challenger(paths)


@pytest.mark.parametrize("step", ["set_tags", "append_record", "promote", "mark_promoted"])
def test_killed_between_the_steps_it_is_finished_and_written_once(shelf, monkeypatch, step):
    paths = Paths(shelf.root)
    owner = {"append_record": promotion, "mark_promoted": Ledger}.get(step, registry)
    with monkeypatch.context() as patch:

        def dies(*arguments):
            raise KeyboardInterrupt

        patch.setattr(owner, step, dies)
        with pytest.raises(KeyboardInterrupt):
            promotion.promote_command(paths, None, "", "")
    assert shelf.in_use == (1 if step == "mark_promoted" else None)
    promotion.promote_command(paths, None, "", "")
    assert shelf.in_use == 1 and actions(shelf) == [(1, "promoted")]


@pytest.mark.parametrize("lock", ["retrain.lock", "run.lock"])
def test_nothing_is_judged_while_data_or_models_change(shelf, lock):
    paths = Paths(shelf.root)
    with alone(paths.at(f"work/{lock}"), ""), pytest.raises(UserError, match="at work here"):
        promotion.promote_command(paths, None, "", "")
    assert not paths.registry.exists()


def test_nothing_to_judge_is_one_line(shelf):
    paths = Paths(shelf.root)
    shelf.new = None
    with pytest.raises(UserError, match="no challenger to judge"):
        promotion.promote_command(paths, None, "", "")
    set_params(shelf, by=["age_group"])
    shelf.new = 1
    with pytest.raises(UserError, match=r"promote\.by: no column age_group"):
        promotion.promote_command(paths, None, "", "")


def test_crops_are_cut_again_as_a_model_of_other_settings_needs_them(tmp_path, shelf):
    paths = Paths(shelf.root)
    draw_batch(paths.raw / "arrived", 1, 1, emotions=["anger", "fear"])
    files = sorted((paths.raw / "arrived").glob("*.jpg"))
    noise = paths.raw / "arrived/noise.png"
    noise.write_bytes(encode_png(np.zeros((256, 256, 3), np.uint8)))
    table = pd.DataFrame({"path": [f"arrived/{file.name}" for file in (*files, noise)]})
    table = table.assign(image_id=["one", "two", "none"], width_px=256, height_px=256)
    same, shards = gate_inputs.crops_for(paths, CropSettings(**CROP), table)
    assert same is table and shards == paths.crop_shards
    other = CropSettings(**{**CROP, "size_px": 64, "margin": 0.1})
    found, folder = gate_inputs.crops_for(paths, other, table)
    assert list(found["image_id"]) == ["one", "two"]  # in the third there is no face
    assert {crop.shape for crop in read_crops(found, folder)} == {(64, 64, 3)}
    shutil.rmtree(paths.raw)  # what is cut already is not cut again
    assert gate_inputs.crops_for(paths, other, table)[1] == folder
