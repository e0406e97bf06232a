"""The gate's work on a project: both models' files, their crops, the test pictures, the decision.

Which pictures are frozen is settled before the challenger's run: those that the model in use was
judged on, less what left the manifest. What the new settings reject, or find no face in, stays. A
model is asked about faces cut as its own `crop.json` says; what the run did not cut that way is cut
again, into `work/gate/`.
"""

import hashlib
import json
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd

from tasks.core.errors import DataError
from tasks.core.models.checkpoint import load_seen
from tasks.core.params import load_section, load_yaml
from tasks.core.paths import Paths
from tasks.core.progress import track
from tasks.core.shards import write_shards
from tasks.core.tables import current_subjects, read_csv, read_table, write_table
from tasks.crop.crops_table import with_crops
from tasks.crop.cut_faces import Cut, Missed, Source, cut_faces
from tasks.crop.settings import CropSettings, settings_of_model
from tasks.crop.stage import Params as CropParams
from tasks.gate.decision import ANSWERS, DECISION, Contender, Decision, read_decision
from tasks.gate.judge import decide, deciding
from tasks.gate.score import Scores, score
from tasks.gate.settings import Params
from tasks.register.kept_files import TEST
from tasks.register.records import INTO_USE, PROMOTED, REFUSED, WAITING, read_records
from tasks.register.registry import Version, fetch

_PLACE = ["image_id", "shard", "offset_bytes", "size_bytes"]
_CUT_AGAIN = "crops.parquet"  # written last: a folder without it is not finished


def decide_about(paths: Paths, challenger: Version, champion: Version | None) -> Decision:
    """Score both versions on the test pictures and judge the challenger.

    Parameters
    ----------
    paths
        The project's paths: data/manifest.parquet, data/split.parquet, the crops, data/raw (to cut
        again) and registry/ (what earlier versions answered).
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
    frozen = split["image_id"][split["split"] == "test"]
    if champion is not None:
        frozen = _frozen_pictures(paths, champion, split)
        split = _with_frozen(split, read_table(paths.manifest), frozen)
    test = split[split["split"] == "test"].reset_index(drop=True)
    if test.empty:
        raise DataError(f"{paths.split}: holds no test picture to judge on")
    used: set[Path] = set()
    new = _judged(paths, challenger, test, params, used)
    old = None if champion is None else _judged(paths, champion, test, params, used)
    others = {challenger.number} | ({champion.number} if champion else set())
    looks = 1.0 if champion is None else looks_at(paths, frozen, challenger, params)
    earlier = _earlier(paths, others)
    decision = decide(split, frozen, new, old, params, earlier, needed_groups(paths), looks)
    _remove_others(paths, used)
    return decision


def needed_groups(paths: Paths) -> dict[str, Mapping[str, Sequence[str]]]:
    """Return the groups without which no version comes into use by itself, by key of params.

    The group that the model is fine-tuned on, and the children for whom it is trained again: a
    version made for them is not used unless it can be told whether it harms them.
    """
    content = load_yaml(paths.params)
    found: dict[str, Mapping[str, Sequence[str]]] = {}
    for key, where in (
        ("finetune.group", content.get("finetune", {}).get("group")),
        ("retrain.children", {"age_band": content.get("retrain", {}).get("children")}),
    ):
        if where and all(where.values()):
            found[key] = where
    return found


def looks_at(paths: Paths, frozen: pd.Series, challenger: Version, params: Params) -> float:
    """Count the looks at the frozen pictures, this one included.

    A decision against a model in use looked at the pictures that its version answered; it counts by
    the share of today's frozen pictures among them, so that fresh ones count for less. The same
    decision once more is no further look.
    """
    today = set(frozen)
    looks = 1.0
    for decision, answered in _decisions(paths):
        own = decision.challenger.version == challenger.number
        again = own and decision.challenger.digest == challenger.digest
        if decision.champion is None or (again and decision.params == deciding(params)):
            continue
        looks += len(today & answered) / max(len(today), 1)
    return looks


def answers_of_judged(paths: Paths) -> list[pd.Series]:
    """Return what every version answered that was judged and kept its answers, oldest first."""
    records = read_records(paths)
    judged = records[records["action"].isin([PROMOTED, REFUSED, WAITING])]
    versions = dict.fromkeys(zip(judged["version"], judged["digest"], strict=True))
    found = [_answers_of(paths, int(number), digest) for number, digest in versions]
    return [answers for answers in found if answers is not None]


def _decisions(paths: Paths) -> Iterator[tuple[Decision, set[str]]]:
    """Yield every decision that was recorded, with the pictures that its version answered."""
    records = read_records(paths)
    judged = records[records["action"].isin([PROMOTED, REFUSED, WAITING])]
    names = judged["decision_id"].str.partition(".")[0]
    for number, digest, name in dict.fromkeys(
        zip(judged["version"], judged["digest"], names, strict=True)
    ):
        decision = read_decision(paths.decision(int(number)) / f"{name}.json")
        answers = None if decision is None else _answers_of(paths, int(number), digest)
        if decision is not None and answers is not None:
            yield decision, set(answers.index)


def _with_frozen(split: pd.DataFrame, manifest: pd.DataFrame, frozen: pd.Series) -> pd.DataFrame:
    """Return the split table with every frozen picture of the manifest, labelled as there."""
    kept = manifest[manifest["image_id"].isin(frozen)]
    more = [name for name in split.columns if name not in kept.columns]
    kept = kept.merge(split[["image_id", *more]], on="image_id", how="left").assign(split="test")
    rest = split[~split["image_id"].isin(kept["image_id"])]
    return pd.concat([kept, rest], ignore_index=True)


def _judged(
    paths: Paths, version: Version, test: pd.DataFrame, params: Params, used: set[Path]
) -> tuple[Contender, Scores, pd.DataFrame]:
    """Ask a version about the test pictures; returns it, its answers and whom it has seen."""
    folder = fetch(paths, version.number)
    settings = settings_of_model(folder)
    parts = []
    for pictures, shards in _crops_of_all(paths, settings, test):
        used.add(shards)
        place = pictures[_PLACE].astype({"offset_bytes": int, "size_bytes": int})
        parts.append(score(folder, place, shards, params))
    scores = Scores(parts[0].labels, pd.concat([part.table for part in parts], ignore_index=True))
    contender = Contender(version.number, version.digest, version.run_id)
    return contender, scores, load_seen(folder)


def _crops_of_all(
    paths: Paths, settings: CropSettings, table: pd.DataFrame
) -> list[tuple[pd.DataFrame, Path]]:
    """Return pictures with their crops as `crops_for` does, also of those the run did not cut."""
    cut = table["shard"].notna()
    if not cut.all() and not _cut_otherwise(paths, settings):
        missing = table[~cut]
        return [(table[cut], paths.crop_shards), _own_crops(paths, settings, missing)]
    return [crops_for(paths, settings, table)]


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
    if not _cut_otherwise(paths, settings):
        return table, paths.crop_shards
    return _own_crops(paths, settings, table)


def _cut_otherwise(paths: Paths, settings: CropSettings) -> bool:
    """Tell whether the run's crops were cut another way than a model needs."""
    ours = json.loads(paths.crop_settings.read_text(encoding="utf-8"))
    return bool(asdict(settings) != ours)


def _own_crops(
    paths: Paths, settings: CropSettings, table: pd.DataFrame
) -> tuple[pd.DataFrame, Path]:
    """Return the places of pictures that were cut for a decision, and their folder."""
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


def _frozen_pictures(paths: Paths, champion: Version, split: pd.DataFrame) -> pd.Series:
    """Return the pictures that a version is to be compared on: its test split and all it answered.

    The second keeps what it found no face in, and what was frozen before it. People whose id is
    spelled otherwise today (`current_subjects`) have a split of that id: those who are no test
    people by it are left out, for the challenger is trained on them.
    """
    path = fetch(paths, champion.number) / TEST
    try:
        test = read_csv(path, dtype="str", keep_default_na=False)
        own, moved = test["image_id"], _moved_to_training(test, split)
    except (FileNotFoundError, KeyError, ValueError) as error:
        fault = " ".join(str(error).split())[:120]
        raise DataError(f"{path}: does not say which pictures were frozen ({fault})") from None
    answered = _answers_of(paths, champion.number, champion.digest)
    more = [] if answered is None else [answered.index.to_series()]
    frozen = pd.concat([own, *more]).drop_duplicates()
    return frozen[~frozen.isin(moved)].reset_index(drop=True)


def _moved_to_training(test: pd.DataFrame, split: pd.DataFrame) -> pd.Series:
    """Return the pictures of a former test split whose people are in training by today's id."""
    if "subject_id" not in test.columns:
        return test["image_id"].iloc[:0]
    people = current_subjects(test)["subject_id"]
    trained = split.loc[split["split"] != "test", "subject_id"]
    return test["image_id"][(people != test["subject_id"]) & people.isin(trained)]


def _earlier(paths: Paths, others: Collection[int]) -> dict[int, pd.Series]:
    """Return the answers of the versions that were once in use, but for the two compared."""
    records = read_records(paths)
    once = records[records["action"].isin(INTO_USE)].drop_duplicates(["version", "digest"])
    found = {
        int(row.version): _answers_of(paths, int(row.version), str(row.digest))
        for row in once.itertuples()
        if row.version and int(row.version) not in others
    }
    return {number: answers for number, answers in found.items() if answers is not None}


def _answers_of(paths: Paths, number: int, digest: str) -> pd.Series | None:
    """Return what a version answered when it was judged; None where that was not kept."""
    folder = paths.decision(number)
    decision = read_decision(folder / DECISION)
    if decision is None or decision.challenger.digest != digest:
        return None  # of another registry, which counted from 1 too
    try:
        table = read_csv(folder / ANSWERS, dtype="str", keep_default_na=False)
        return table.set_index("image_id")["answer"]
    except FileNotFoundError:
        return None
    except (KeyError, ValueError) as error:
        fault = " ".join(str(error).split())[:120]
        raise DataError(f"{folder / ANSWERS}: is no table of answers ({fault})") from None


def _check_groups(split: pd.DataFrame, params: Params, paths: Paths) -> None:
    named = {"by": params.by, "protected": [name for one in params.protected for name in one]}
    for key, columns in named.items():
        unknown = [name for name in dict.fromkeys(columns) if name not in split.columns]
        if unknown:
            raise DataError(
                f"{paths.params}: promote.{key}: no column {', '.join(unknown)} in the data"
            )
