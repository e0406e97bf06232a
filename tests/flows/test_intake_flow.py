"""What `affectgap intake` says of a data set that params.yaml does not read yet."""

from pathlib import Path

import pytest
from PIL import Image

from flows import intake
from tasks.core.paths import Paths

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("dataset", "preset", "said"),
    [
        ("cafe", "cafe-nimh", None),
        ("cafe", "drawn", "does not read it yet: `affectgap use cafe-nimh`"),
        ("kdef", "drawn", "add it to ingest.datasets with the adapter kdef"),
        ("holidays", "drawn", "add it to ingest.datasets with the adapter folder"),
    ],
)
def test_the_next_step_is_said_where_params_lack_the_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: str, preset: str, said: str | None
) -> None:
    monkeypatch.setattr(intake, "run_dvc", lambda root, *arguments: iter(["exit 0"]))
    params = (REPOSITORY / "presets" / f"{preset}.yaml").read_bytes()
    (tmp_path / "params.yaml").write_bytes(params)
    (tmp_path / "given").mkdir()
    Image.new("RGB", (20, 20), "grey").save(tmp_path / "given/a.png")
    line = intake.take_in(Paths(tmp_path), tmp_path / "given", dataset)
    assert f"data/raw/{dataset}: 1 files" in line and "\n" not in line
    assert ("does not read it yet" in line) == (said is not None)
    assert said is None or said in line
