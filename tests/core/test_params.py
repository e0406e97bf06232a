import pytest
from pydantic import Field

from tasks.core.errors import ParamsError
from tasks.core.params import Section, load_section


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
        ("", "holds no mapping"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(tmp_path, text, named):
    with pytest.raises(ParamsError) as caught:
        load(tmp_path, text)
    message = str(caught.value)
    assert named in message
    assert "\n" not in message
    assert "params.yaml" in message


def test_a_missing_file_says_which_command_writes_one(tmp_path):
    with pytest.raises(ParamsError, match="affectgap use"):
        load_section(tmp_path / "params.yaml", "stage", Stage)


def test_params_cannot_be_changed_by_a_stage(tmp_path):
    params = load(tmp_path, "stage: {seed: 3, inner: {share: 0.2}}")
    with pytest.raises(ValueError, match="frozen"):
        params.seed = 4
