import json

import pytest
from pydantic import Field
from spellings import nfd

from tasks.core.errors import ParamsError
from tasks.core.params import Section, load_section, load_yaml


class Inner(Section):
    share: float = Field(gt=0, lt=1)


class Stage(Section):
    seed: int
    inner: Inner


def load(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return load_section(path, "stage", Stage)


def test_a_whole_section_loads(tmp_path):
    params = load(tmp_path, "stage: {seed: 3, inner: {share: 0.2}}")
    assert (params.seed, params.inner.share) == (3, 0.2)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("stage: {sead: 3, seed: 3, inner: {share: 0.2}}", "stage.sead"),
        ("stage: {seed: 3, inner: {share: 0.2, extra: 1}}", "stage.inner.extra"),
        ("stage: {seed: 3, inner: {}}", "stage.inner.share"),
        ("stage: {seed: many, inner: {share: 0.2}}", "stage.seed"),
        ("stage: {seed: 3, inner: {share: 1.5}}", "stage.inner.share"),
        ("other: {}", "no section 'stage'"),
        ("stage: [", "not valid YAML"),
        ("", "is not a mapping"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(tmp_path, text, named):
    with pytest.raises(ParamsError) as caught:
        load(tmp_path, text)
    message = str(caught.value)
    assert named in message
    assert "\n" not in message
    assert "params.yaml" in message


ALIAS_BOMB = (
    "a0: &a0 ["
    + ",".join(["lol"] * 9)
    + "]\n"
    + "".join(
        f"a{level}: &a{level} [{','.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 9)
    )
)
LONG = "x" * 200_000


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (ALIAS_BOMB + "stage: {seed: *a8, inner: {share: 0.2}}", "once its aliases are written"),
        (f"a: &a {LONG}\nstage: {{seed: [*a, *a, *a], inner: {{share: 0.2}}}}", "stage.seed"),
        (f"stage: {{seed: {LONG}, inner: {{share: 0.2}}}}", "stage.seed: "),
        (f"stage: {{seed: 1, inner: {{share: 0.2}}, ? {LONG} : 1}}", "stage.x"),
        (f"stage: {{seed: 1, inner: {{{','.join(f'k{n}: 1' for n in range(999))}}}}}", "and 990"),
        (f"stage: !{LONG} 1", "could not determine a constructor"),
        (f"stage: {{seed: [{'[' * 40}{']' * 40}], inner: {{share: 0.2}}}}", "stage.seed"),
        (f"stage: {{seed: [{'[' * 200}{']' * 200}], inner: {{share: 0.2}}}}", "nested too deeply"),
        ("stage:\n  seed: 1\n  seed: 2\n", "key 'seed' occurs twice (lines 2 and 3)"),
    ],
)
def test_what_a_message_quotes_is_short_however_long_the_value(tmp_path, text, named):
    with pytest.raises(ParamsError) as caught:
        load(tmp_path, text)
    message = str(caught.value)
    assert named in message and len(message) < 1500 and "\n" not in message


def test_a_missing_file_says_which_command_writes_one(tmp_path):
    with pytest.raises(ParamsError, match="affectgap use"):
        load_section(tmp_path / "params.yaml", "stage", Stage)


def test_params_cannot_be_changed_by_a_stage(tmp_path):
    params = load(tmp_path, "stage: {seed: 3, inner: {share: 0.2}}")
    with pytest.raises(ValueError, match="frozen"):
        params.seed = 4


def test_group_words_are_spelled_as_in_the_data_and_paths_as_on_disk(tmp_path):
    file = tmp_path / nfd("인구.csv")
    file.touch()
    groups = {nfd("인종"): [nfd("한국"), "Korean\u00a0", 3, None]}
    content = {"finetune": {"subset": groups}, "audit": {"pretraining": file.name}}
    path = tmp_path / "params.yaml"
    path.write_text(json.dumps(content), encoding="utf-8")  # JSON is YAML
    assert load_yaml(path) == {
        "finetune": {"subset": {"인종": ["한국", "Korean", 3, None]}},
        "audit": {"pretraining": file.name},
    }
    content["finetune"]["subset"]["인종"] = []
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ParamsError, match="인종 occurs twice, in two spellings"):
        load_yaml(path)
