"""The gate's work on a project: both models' files, their crops, the test pictures, the decision.

A model is asked about faces cut as its own `crop.json` says. Where that is not how the run's crops
were cut, the test pictures are cut again, into `work/gate/`.
"""

import hashlib
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd

from tasks.core.errors import DataError
from tasks.core.models.checkpoint import load_seen
from tasks.core.params import load_section
from tasks.core.paths import Paths
from tasks.core.progress import track
from tasks.core.shards import write_shards
from tasks.core.tables import read_table, write_table
from tasks.crop.crops_table import with_crops
from tasks.crop.cut_faces import Cut, Missed, Source, cut_faces
from tasks.crop.settings import CropSettings, settings_of_model
from tasks.crop.stage import Params as CropParams
from tasks.gate.decision import Contender, Decision
from tasks.gate.judge import decide
from tasks.gate.score import Scores, score
from tasks.gate.settings import Params
from tasks.register.kept_files import TEST
from tasks.register.registry import Version, fetch

_PLACE = ["image_id", "shard", "offset_bytes", "size_bytes"]
_CUT_AGAIN = "crops.parquet"  # written last: a folder without it is not finished


def decide_about(paths: Paths, challenger: Version, champion: Version | None) -> Decision:
    """Score both versions on the test pictures and judge the challenger.

    Parameters
    ----------
    paths
        The project's paths: data/split.parquet, the crops (or data/raw, to cut them again).
    challenger, champion
        Who is judged, and who is in use; None for the first model ever.

    Raises
    ------
    DataError, ModelError, ParamsError
        One line, where something is missing or damaged.
    """
    params = load_section(paths.params, "promote", Params)
    split = read_table(paths.split)
    _check_groups(split, params, paths)
    test = split[split["split"] == "test"].reset_index(drop=True)
    if test.empty:
        raise DataError(f"{paths.split}: holds no test picture to judge on")
    used: set[Path] = set()
    new = _judged(paths, challenger, test, params, used)
    old = None if champion is None else _judged(paths, champion, test, params, used)
    frozen = test["image_id"]
    if champion is not None:
        frozen = _test_pictures(fetch(paths, champion.number))
    decision = decide(split, frozen, new, old, params)
    _remove_others(paths, used)
    return decision


def _judged(
    paths: Paths, version: Version, test: pd.DataFrame, params: Params, used: set[Path]
) -> tuple[Contender, Scores, pd.DataFrame]:
    """Ask a version about the test pictures; returns it, its answers and whom it has seen."""
    folder = fetch(paths, version.number)
    pictures, shards = crops_for(paths, settings_of_model(folder), test)
    used.add(shards)
    scores = score(folder, pictures[_PLACE], shards, params)
    contender = Contender(version.number, version.digest, version.run_id)
    return contender, scores, load_seen(folder)


def crops_for(
    paths: Paths, settings: CropSettings, table: pd.DataFrame
) -> tuple[pd.DataFrame, Path]:
    """Return pictures with crops cut as a model needs them.

    Parameters
    ----------
    paths
        The project's paths.
    settings
        The model's.
    table
        Rows of the split table.

    Returns
    -------
    table, shards
        The rows themselves and the run's crops, where these are cut that way; otherwise the
        `image_id` and place of those in which a face was found, and a folder below work/gate.
    """
    ours = json.loads(paths.crop_settings.read_text(encoding="utf-8"))
    if asdict(settings) == ours:
        return table, paths.crop_shards
    asked = json.dumps([asdict(settings), table["image_id"].tolist()], sort_keys=True)
    folder = paths.work("gate", hashlib.sha256(asked.encode()).hexdigest()[:16])
    if not (folder / _CUT_AGAIN).is_file():
        _cut_again(paths, settings, table, folder)
    return read_table(folder / _CUT_AGAIN), folder


def _cut_again(paths: Paths, settings: CropSettings, table: pd.DataFrame, folder: Path) -> None:
    """Cut pictures again, straight from data/raw."""
    params = load_section(paths.params, "crop", CropParams)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rows = table[["path", "width_px", "height_px"]].itertuples(index=False)
    sources = (Source(paths.raw / row.path, row.width_px * row.height_px) for row in rows)
    cuts = track(cut_faces(sources, settings, params.workers), len(table), "crop")
    outcomes: list[Cut | Missed] = []

    def members():  # type: ignore[no-untyped-def]
        for image_id, outcome in zip(table["image_id"], cuts, strict=True):
            outcomes.append(replace(outcome, png=b"") if isinstance(outcome, Cut) else outcome)
            if isinstance(outcome, Cut):
                yield f"{image_id}.png", outcome.png

    places = list(write_shards(members(), folder, params.per_shard))
    found = with_crops(table, outcomes, places)
    write_table(found[_PLACE], folder / _CUT_AGAIN)


def _remove_others(paths: Paths, used: set[Path]) -> None:
    """Remove crops that earlier decisions needed."""
    home = paths.work("gate", "any").parent
    for folder in home.iterdir() if home.is_dir() else ():
        if folder not in used:
            shutil.rmtree(folder, ignore_errors=True)


def _test_pictures(folder: Path) -> pd.Series:
    """Return the pictures that a version was judged on when it was registered."""
    path = folder / TEST
    try:
        return pd.read_csv(path, dtype="str", keep_default_na=False)["image_id"]
    except (FileNotFoundError, KeyError, ValueError) as error:
        fault = " ".join(str(error).split())[:120]
        raise DataError(f"{path}: does not say which pictures were frozen ({fault})") from None


def _check_groups(split: pd.DataFrame, params: Params, paths: Paths) -> None:
    unknown = [name for name in params.by if name not in split.columns]
    if unknown:
        raise DataError(f"{paths.params}: promote.by: no column {', '.join(unknown)} in the data")
