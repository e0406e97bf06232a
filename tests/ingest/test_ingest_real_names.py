"""The real names of licensed sets, read and compared with what others wrote down about them.

The names and the label CSVs (Xavi3398/fer_benchmark, MIT) lie in the folder that AFFECTGAP_ASSETS
names. Every disagreement is listed here and, with who is right, in docs/datasets.md; another one
fails. `auto_*` values are a model's estimates and are left out.
"""

import csv
import os
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from tasks.ingest.adapters import ADAPTERS
from tasks.ingest.label import AdapterResult, Fault, Label

pytestmark = pytest.mark.skipif(
    "AFFECTGAP_ASSETS" not in os.environ, reason="AFFECTGAP_ASSETS is not set"
)
SETS = {  # file: adapter, rows, subjects
    "DDCF": ("ddcf", 6366, 80),
    "DEFSS": ("defss", 404, 116),
    "FACES": ("faces", 2052, 171),
    "JAFFE": ("jaffe", 213, 10),
    "KDEF": ("kdef", 4887, 70),
    "LIRIS": ("liris-cse", 1096, 12),
    "NIMH-ChEFS": ("nimh-chefs", 533, 59),
    "RaFD": ("rafd", 8040, 67),
}
# What the adapter leaves out and the CSV labels: (reason, the CSV's class) to rows.
LEFT_OUT = {
    "DDCF": {("unknown_label", "pleased"): 797, ("unreadable_name", "neutral"): 13},
    "LIRIS": {
        ("unlabelled_frame", "neutral"): 190,
        ("two_labels", "neutral"): 31,
        ("two_labels", "fear"): 43,
        ("two_labels", "surprise"): 56,
        ("two_labels", "happiness"): 20,
        ("two_labels", "disgust"): 4,
    },
}
# Where the CSV puts a picture with other people than its name does.
OTHER_SUBJECT = {
    "NIMH-ChEFS": {
        "M3-2SA_4764.jpg": ("M3", "NIMH-ChEFS-44"),  # the CSV's M20
        "F1H1A_3424.jpg": ("F1", "NIMH-ChEFS-53"),  # a person of their own in the CSV
        "F1H2A_3338.jpg": ("F1", "NIMH-ChEFS-53"),
    }
}
NAMES_WITHOUT_EMOTION = re.compile(
    r"S111_13yoF_(far left|far right|front|left|right).*|S99_.*_exp_.*"
)


def rows_of(name: str) -> list[dict[str, str]]:
    path = Path(os.environ["AFFECTGAP_ASSETS"]) / "labels" / f"labels_{name}.csv"
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def read(name: str, rows: list[dict[str, str]], folder: Path) -> AdapterResult:
    """Read the names; LIRIS-CSE's participants are in a table, made here of its twelve people."""
    files = sorted({row["name"] for row in rows})
    if name == "LIRIS":
        people = {(row["name"].split("_")[0], row["age"], row["gender"]) for row in rows}
        lines = ["subject,age,gender", *(",".join(person) for person in sorted(people))]
        (folder / "participants.csv").write_text("\n".join(lines) + "\n")
        files.append("participants.csv")
    reading = ADAPTERS[SETS[name][0]](folder, files)
    assert set(reading.labels) == {row["name"] for row in rows} and not reading.notes
    return reading


@pytest.fixture(params=SETS)
def rows_and_labels(request: pytest.FixtureRequest, tmp_path: Path):
    name = request.param
    rows = rows_of(name)
    assert len(rows) == SETS[name][1]
    reading = read(name, rows, tmp_path)
    return name, [(row, reading.labels[row["name"]]) for row in rows]


def test_every_row_is_read_or_left_out_with_a_known_reason(rows_and_labels) -> None:
    name, pairs = rows_and_labels
    faults = Counter(
        (label.reason, row["class"]) for row, label in pairs if isinstance(label, Fault)
    )
    assert faults == LEFT_OUT.get(name, {})


def test_emotion_and_gender_of_every_row_agree(rows_and_labels) -> None:
    _, pairs = rows_and_labels
    read_rows = [(row, label) for row, label in pairs if isinstance(label, Label)]
    assert not [row["name"] for row, label in read_rows if label.emotion != row["class"]]
    recorded = [(row, label) for row, label in read_rows if row["auto_gender"] == "0"]
    assert recorded
    assert not [row["name"] for row, label in recorded if label.gender != row["gender"]]


def test_recorded_ages_of_every_row_agree(rows_and_labels) -> None:
    name, pairs = rows_and_labels
    recorded = [
        (row, label) for row, label in pairs if isinstance(label, Label) and row["auto_age"] == "0"
    ]
    assert bool(recorded) == (name in ("DDCF", "DEFSS", "LIRIS"))
    for row, label in recorded:
        assert (label.age_years, label.age_source) == (float(row["age"]), "recorded"), row["name"]
    for row, label in pairs:
        if isinstance(label, Label) and row["auto_age"] == "1":
            assert label.age_years is None, f"{row['name']}: an age that the set does not record"


def test_the_partition_into_subjects_is_the_same(rows_and_labels) -> None:
    name, pairs = rows_and_labels
    listed = OTHER_SUBJECT.get(name, {})
    theirs, ours = defaultdict(set), defaultdict(set)
    for row, label in pairs:
        if not isinstance(label, Label):
            continue
        if row["name"] in listed:
            assert (label.subject, row["user_id"]) == listed[row["name"]]
            continue
        theirs[label.subject].add(row["user_id"])
        ours[row["user_id"]].add(label.subject)
    assert {len(found) for found in theirs.values()} == {1}
    assert {len(found) for found in ours.values()} == {1}
    assert len(theirs) == SETS[name][2]


def test_views_and_gazes_agree(rows_and_labels) -> None:
    """The words differ; each of the set's words must stand for one of the CSV's, and back."""
    name, pairs = rows_and_labels
    words = {"NIMH-ChEFS": "gaze", "KDEF": "pose", "DDCF": "pose"}
    seen = set()
    for row, label in pairs:
        if isinstance(label, Label) and (name in words or name == "RaFD"):
            ours = (label.pose, label.gaze) if name == "RaFD" else getattr(label, words[name])
            seen.add((ours, row["perspective"]))
    assert len({ours for ours, _ in seen}) == len({theirs for _, theirs in seen}) == len(seen)


def test_ranges_that_sets_state() -> None:
    ranges = defaultdict(set)
    for name, (adapter, *_) in SETS.items():
        rows = rows_of(name)
        if name == "LIRIS":
            continue
        for label in ADAPTERS[adapter](Path("none"), [row["name"] for row in rows]).labels.values():
            if isinstance(label, Label) and label.age_range:
                ranges[adapter].add(label.age_range.words)
    assert ranges == {
        "faces": {"young", "middle-aged", "older"},
        "kdef": {"20-30"},
        "nimh-chefs": {"10-17"},
        "rafd": {"Kid", "adult"},
    }


def test_which_names_of_ddcf_hold_no_emotion(tmp_path: Path) -> None:
    reading = read("DDCF", rows_of("DDCF"), tmp_path)
    found = [
        path
        for path, label in reading.labels.items()
        if isinstance(label, Fault) and label.reason == "unreadable_name"
    ]
    assert len(found) == 13
    assert all(NAMES_WITHOUT_EMOTION.fullmatch(path) for path in found), found


def test_the_names_of_cafe() -> None:
    path = Path(os.environ["AFFECTGAP_ASSETS"]) / "labels" / "cafe_names.txt"
    names = path.read_text().split()
    assert len(names) == 1178
    labels = list(ADAPTERS["cafe"](Path("none"), names).labels.values())
    assert all(isinstance(label, Label) for label in labels)
    assert Counter(label.emotion for label in labels) == {
        "neutral": 229,
        "happiness": 213,
        "anger": 204,
        "disgust": 190,
        "fear": 139,
        "sadness": 107,
        "surprise": 96,
    }
    assert Counter(label.mouth for label in labels) == {"closed": 603, "open": 575}
    assert Counter(label.emotion_raw for label in labels)["angryopen"] == 84
    children = {label.subject: label for label in labels}
    # The published counts: 154 children, 90 girls and 64 boys, 27 + 16 + 77 + 23 + 11; of the
    # eleven South Asian children the names call one Pacific Islander.
    assert Counter(child.gender for child in children.values()) == {"female": 90, "male": 64}
    assert Counter(child.ethnicity for child in children.values()) == {
        "African American": 27,
        "Asian": 16,
        "European American": 77,
        "Latino": 23,
        "South Asian": 10,
        "Pacific Islander": 1,
    }
    for label in labels:  # gender and race are the subject's, whatever the take
        child = children[label.subject]
        assert (label.gender, label.ethnicity) == (child.gender, child.ethnicity)
        assert label.age_years is None and label.age_range.words == "2-8"
