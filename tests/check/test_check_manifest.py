"""Each fault is caught, a good manifest passes, and every row is accounted for."""

import json
from collections.abc import Callable

import pandas as pd
import pytest
from manifests import SETTINGS, good_manifest, params_with

from tasks.check import stage
from tasks.check.run_suites import ValidationReport, run_suites
from tasks.check.settings import Params
from tasks.check.suites import set_suites
from tasks.check.validate import checks_json, new_context
from tasks.core.errors import DataError, ParamsError
from tasks.core.labels import EMOTIONS
from tasks.core.params import load_yaml, parse_section
from tasks.core.paths import Paths
from tasks.core.tables import MANIFEST_SCHEMA, read_table, write_table

Change = Callable[[pd.DataFrame], pd.DataFrame]


def judged(manifest: pd.DataFrame, params: Params | None = None) -> ValidationReport:
    return run_suites(manifest, params or params_with(), new_context())


def names_of(judgement: ValidationReport) -> list[str]:
    return [finding.check.name for finding in judgement.faults]


# One row each: what is written into it, the reason it is rejected for, and what the detail says.
ROW_FAULTS = [
    ({"age_years": 140.0}, "implausible_age", "age_years = 140"),
    ({"age_years": -1.0}, "implausible_age", "age_years = -1"),
    ({"emotion": "joy"}, "unexpected_emotion", "emotion = joy"),
    ({"gender": "girl"}, "unexpected_gender", "gender = girl"),
    ({"age_band": "toddler"}, "unexpected_age_band", "age_band = toddler"),
    ({"age_source": "guessed"}, "unexpected_age_source", "age_source = guessed"),
    ({"width_px": 20}, "too_narrow", "width_px = 20"),
    ({"height_px": 47}, "too_low", "height_px = 47"),
    ({"emotion": None}, "no_emotion", "emotion = null"),
    ({"subject_id": None}, "no_subject_id", "subject_id = null"),
    ({"path": "../secret.png"}, "bad_path", "path = ../secret.png"),
    ({"sha256": "xyz", "image_id": "xyz"}, "bad_sha256", "sha256 = xyz"),
    ({"dataset": "all", "subject_id": "all/x"}, "reserved_word", "dataset = all"),
    ({"image_id": "0" * 16}, "bad_image_id", "image_id = 0000000000000000"),
    (
        {"subject_id": "other/adult1"},
        "foreign_subject",
        "dataset = set, subject_id = other/adult1",
    ),
    (
        {"width_px": 1, "gender": "m", "age_years": 999.0},
        "unexpected_gender; implausible_age; too_narrow",
        "gender = m; age_years = 999; width_px = 1",
    ),
]


@pytest.fixture(scope="module")
def faulty() -> tuple[pd.DataFrame, ValidationReport]:
    """A manifest with every fault of `ROW_FAULTS` in a row of its own, and three copies."""
    manifest = good_manifest(subjects_a_band=8)
    for row, (values, _, _) in enumerate(ROW_FAULTS):
        for column, value in values.items():
            manifest.loc[row, column] = value
    source = len(ROW_FAULTS)
    copies = manifest.loc[[source, source + 2]].assign(path=["set/copy.png", "set/again.png"])
    copies.loc[source, "emotion"] = "happiness"  # the source shows anger: two labels
    manifest = pd.concat([manifest, copies], ignore_index=True)
    return manifest, judged(manifest)


def test_good_manifest_passes_whole() -> None:
    manifest = good_manifest()
    judgement = judged(manifest)
    assert [finding.check.name for finding in judgement.findings if not finding.success] == []
    assert judgement.passed is not None
    assert set(judgement.passed["warnings"]) == {""}
    pd.testing.assert_frame_equal(judgement.passed.drop(columns="warnings"), manifest)
    assert judgement.rejects.empty


@pytest.mark.parametrize("row", range(len(ROW_FAULTS)), ids=lambda row: ROW_FAULTS[row][1])
def test_row_fault_is_quarantined_with_reason_and_value(
    faulty: tuple[pd.DataFrame, ValidationReport], row: int
) -> None:
    manifest, judgement = faulty
    _, reason, detail = ROW_FAULTS[row]
    rejected = judgement.rejects[judgement.rejects["path"] == manifest.loc[row, "path"]]
    assert rejected[["reason", "detail"]].to_numpy().tolist() == [[reason, detail]]


def test_copies_are_quarantined_and_conflicting_labels_named(
    faulty: tuple[pd.DataFrame, ValidationReport],
) -> None:
    manifest, judgement = faulty
    rejects = judgement.rejects.set_index("path")
    source = len(ROW_FAULTS)
    relabelled = rejects.loc[[manifest.loc[source, "path"], "set/copy.png"]]
    assert all("conflicting_labels" in reason.split("; ") for reason in relabelled["reason"])
    assert all("anger, happiness" in detail for detail in relabelled["detail"])
    same = rejects.loc[[manifest.loc[source + 2, "path"], "set/again.png"]]
    assert set(same["reason"]) == {"duplicate; duplicate_image_id"}
    assert all("set/again.png" in detail for detail in same["detail"])


def test_subject_of_two_data_sets_and_file_in_two_rows_are_caught() -> None:
    manifest = good_manifest()
    manifest.loc[1, "dataset"] = "other"  # its subject is still set/adult0, as in row 0
    manifest.loc[5, "path"] = manifest.loc[4, "path"]
    judgement = judged(manifest)
    assert judgement.rejects["reason"].tolist() == [
        "foreign_subject",
        "duplicate_path",
        "duplicate_path",
    ]
    assert judgement.passed is not None
    assert judgement.passed.groupby("subject_id")["dataset"].nunique().max() == 1


def test_rows_in_are_rows_out_plus_rejects(faulty: tuple[pd.DataFrame, ValidationReport]) -> None:
    manifest, judgement = faulty
    assert judgement.passed is not None
    assert len(judgement.rejects) == len(ROW_FAULTS) + 4
    assert sorted([*judgement.passed["path"], *judgement.rejects["path"]]) == sorted(
        manifest["path"]
    )


def test_a_fault_in_one_row_does_not_warn_about_its_subject(
    faulty: tuple[pd.DataFrame, ValidationReport],
) -> None:
    _, judgement = faulty
    assert judgement.passed is not None
    assert set(judgement.passed["warnings"]) == {""}


def test_warnings_mark_rows_and_keep_them() -> None:
    manifest = good_manifest()
    manifest.loc[0, "gender"] = "female"  # the subject's other picture says male
    manifest.loc[2, ["age_years", "age_band", "age_source"]] = [None, "unknown", None]
    manifest.loc[4, "age_source"] = "estimated"
    manifest.loc[6, "gender"] = "unknown"
    manifest.loc[8, "age_years"] = 40.0
    manifest.loc[10, ["subject_known", "gender"]] = [False, "unknown"]
    passed = judged(manifest).passed
    assert passed is not None
    marked = passed.loc[passed["warnings"] != "", "warnings"]
    assert marked.to_dict() == {
        0: "subject_gender_conflict",
        1: "subject_gender_conflict",
        2: "unknown_age",
        4: "estimated_age",
        6: "unknown_gender",
        8: "subject_age_conflict",
        9: "subject_age_conflict",
        10: "unknown_gender; unknown_subject",
    }
    assert len(passed) == len(manifest)


def without(column: str) -> Change:
    return lambda manifest: manifest.drop(columns=column)


def all_null(column: str) -> Change:
    return lambda manifest: manifest.assign(
        **{column: pd.Series([None] * len(manifest), dtype="str")}
    )


SET_FAULTS: list[tuple[str, Change, dict[str, object], list[str], str]] = [
    ("empty", lambda m: m.iloc[:0], {}, ["manifest_not_empty"], "found 0"),
    ("missing column", without("emotion"), {}, ["column_emotion"], "'emotion'"),
    ("missing numbers", without("width_px"), {}, ["column_width_px"], "'width_px'"),
    ("all null", all_null("emotion"), {}, ["emotion_not_all_null"], "'emotion'"),
    (
        "age as text",
        lambda m: m.assign(age_years=m["age_years"].astype("str")),
        {},
        ["type_of_age_years"],
        "found str",
    ),
    ("few rows", lambda m: m, {"min_rows": 99}, ["enough_pictures"], "found 24"),
    (
        "small group",
        lambda m: m[(m["age_band"] == "adult") | (m["emotion"] == "anger") | (m.index > 20)],
        {},
        ["images_per_group", "subjects_per_group"],
        "(age_band child, emotion happiness, n_images 2)",
    ),
    (
        "one child in many pictures",
        lambda m: m.assign(subject_id=m["subject_id"].where(m["age_band"] != "child", "set/one")),
        {},
        ["subjects_per_group"],
        "emotion anger, n_subjects 1), (age_band child, emotion happiness, n_subjects 1)",
    ),
    (
        "one label too many",
        lambda m: m[(m["emotion"] == "happiness") | (m.index % 12 < 8)],
        {"max_label_share": 0.52},
        ["label_balance"],
        "(emotion happiness, share 0.6",
    ),
    (
        "emotion that does not occur",
        lambda m: m,
        {"emotions": ["anger", "happiness", "fear"]},
        ["expected_emotions"],
        "missing: fear",
    ),
    (
        "no recorded gender",
        lambda m: m.assign(gender="unknown"),
        {},
        ["known_gender"],
        "a known gender",
    ),
    (
        "no known group",
        lambda m: m.assign(age_band="unknown", age_years=float("nan")),
        {"required_columns": []},
        ["known_groups"],
        "take the unknown column out of check.group_by",
    ),
    (
        "much in quarantine",
        lambda m: m.assign(gender=m["gender"].where(m.index % 6 != 0, "?")),
        {"max_quarantined_share": 0.1},
        ["few_quarantined"],
        "(quarantined_share 0.166667, reasons unexpected_gender: 4)",
    ),
    (
        "nothing passes",
        lambda m: m.assign(width_px=1),
        {"required_columns": ["gender"], "max_quarantined_share": 1.0},
        ["enough_pictures", "expected_emotions", "known_gender", "known_groups"],
        "found 0",
    ),
]


@pytest.mark.parametrize(
    ("change", "settings", "faults", "says"),
    [case[1:] for case in SET_FAULTS],
    ids=[case[0] for case in SET_FAULTS],
)
def test_set_fault_stops_and_says_what_was_found(
    change: Change, settings: dict[str, object], faults: list[str], says: str
) -> None:
    manifest = change(good_manifest()).reset_index(drop=True)
    judgement = judged(manifest, params_with(**settings))
    assert names_of(judgement) == faults
    lines = [finding.line() for finding in judgement.faults]
    assert says in lines[0]
    assert all("\n" not in line for line in lines)


def test_images_of_unknown_age_are_no_group_that_could_be_too_small() -> None:
    manifest = good_manifest()
    manifest.loc[0, ["age_years", "age_band", "age_source"]] = [None, "unknown", None]
    assert names_of(judged(manifest)) == []


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """A project in which the stage ran on a manifest with one row fault."""
    paths = Paths(tmp_path_factory.mktemp("project"))
    manifest = good_manifest()
    manifest.loc[3, "age_years"] = 400.0
    write_table(manifest, paths.manifest, MANIFEST_SCHEMA)
    return paths


def outputs(paths: Paths) -> list[bytes]:
    made = (paths.checked, paths.rejects("check"), paths.check_results)
    return [path.read_bytes() for path in made]


def test_stage_writes_the_same_bytes_again_and_data_docs(project: Paths) -> None:
    result = stage.run(params_with(), project)
    first = outputs(project)
    stage.run(params_with(), project)
    assert outputs(project) == first
    assert result.metrics["pictures_passed"] == 23
    assert result.metrics["pictures_quarantined"] == 1
    docs = result.artifacts[0]
    assert (docs / "index.html").is_file()
    assert list(docs.glob("validations/pictures/**/*.html"))
    assert read_table(project.checked).columns.tolist() == [*MANIFEST_SCHEMA.names, "warnings"]


def test_records_are_complete_and_hold_no_machine_or_time(project: Paths) -> None:
    stage.run(params_with(), project)
    text = project.check_results.read_text(encoding="utf-8")
    assert str(project.root) not in text
    records = json.loads(text)
    assert {key for record in records for key in record} == {
        *("name", "suite", "kind", "severity", "column", "expectation", "kwargs", "expects"),
        *("success", "observed", "unexpected_count", "failed_rows"),
    }
    names = [record["name"] for record in records]
    assert len(set(names)) == len(names)
    age = records[names.index("implausible_age")]
    path = good_manifest().loc[3, "path"]
    assert (age["success"], age["unexpected_count"]) == (False, 1)
    assert [(row["path"], row["age_years"]) for row in age["failed_rows"]] == [(path, 400.0)]


def test_failed_stage_raises_one_line_a_fault_and_keeps_what_it_found(tmp_path) -> None:
    paths = Paths(tmp_path)
    write_table(good_manifest(), paths.manifest, MANIFEST_SCHEMA)
    with pytest.raises(DataError) as caught:
        stage.run(params_with(min_rows=25, max_label_share=0.4), paths)
    head, *lines = str(caught.value).splitlines()
    assert "data/manifest.parquet: failed 2 expectations" in head
    assert [line.partition(":")[0] for line in lines] == ["enough_pictures", "label_balance"]
    assert not paths.checked.exists()
    (kept,) = tmp_path.glob("work/check/*/checks.json")
    assert {record["name"] for record in json.loads(kept.read_text())} >= {"label_balance"}
    assert (kept.parent / "data_docs/index.html").is_file()


def test_all_null_column_of_a_written_manifest_stops_the_stage(tmp_path) -> None:
    paths = Paths(tmp_path)
    write_table(all_null("gender")(good_manifest()), paths.manifest, MANIFEST_SCHEMA)
    with pytest.raises(DataError, match="gender_not_all_null: expected a value in column 'gender'"):
        stage.run(params_with(), paths)


def test_same_findings_give_the_same_text() -> None:
    assert checks_json(judged(good_manifest()).findings) == checks_json(
        judged(good_manifest()).findings
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"emotions": ["joy"]}, "'joy' is none of the emotions"),
        ({"group_by": ["sex"]}, "'sex' is none of the columns"),
        ({"required_columns": ["gender", "gender"]}, "a name occurs twice"),
        ({"age_bands": ["unknown"]}, "'unknown' is always allowed"),
        ({"age_years": [9, 3]}, "[lowest, highest]"),
        ({"min_rowz": 1}, "check.min_rowz is not a parameter"),
    ],
)
def test_wrong_params_name_the_key(tmp_path, change: dict[str, object], says: str) -> None:
    with pytest.raises(ParamsError) as caught:
        parse_section("check", {"check": SETTINGS | change}, Params, tmp_path / "params.yaml")
    assert says in str(caught.value)


def test_default_params_load(pytestconfig: pytest.Config) -> None:
    where = pytestconfig.rootpath / "params.yaml"
    params = parse_section("check", load_yaml(where), Params, where)
    assert set(params.emotions) <= set(EMOTIONS)


def test_without_named_emotions_any_word_of_the_vocabulary_may_occur():
    named = Params(**SETTINGS)
    params = Params(**{**SETTINGS, "emotions": []})
    assert named.allowed_emotions == ("anger", "happiness")
    assert params.allowed_emotions == EMOTIONS
    names = [check.name for suite in set_suites(params).values() for check in suite.checks]
    assert "enough_pictures" in names
    assert "expected_emotions" not in names


def test_people_whose_ids_are_easily_confused_are_warned_of() -> None:
    manifest = good_manifest()
    manifest.loc[manifest["subject_id"] == "set/child0", "subject_id"] = "set/Adult00"
    passed = judged(manifest).passed
    assert passed is not None
    marked = passed.loc[passed["warnings"] != "", ["subject_id", "warnings"]]
    assert set(marked["warnings"]) == {"subject_lookalikes"}
    assert set(marked["subject_id"]) == {"set/adult0", "set/Adult00"}
