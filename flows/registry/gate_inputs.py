"""Gathers what the gate needs: the files, crops and answers of both models, and the test images.

The frozen test images are fixed before the challenger's run: those on which the model in use was
judged, less those that left the manifest. Images that new settings reject, or in which they find no
face, stay. Each model sees faces cut as its own `crop.json` says; crops that the run did not cut
that way are made in `work/gate/`.
"""

import hashlib
import json
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd

from tasks.core.errors import DataError
from tasks.core.imaging.shards import write_shards
from tasks.core.models.checkpoint import load_seen
from tasks.core.parallel.progress import track
from tasks.core.params import load_section, load_yaml
from tasks.core.paths import Paths
from tasks.core.tables import current_subjects, read_csv, read_table, write_table
from tasks.crop.crop_faces import FaceCrop, NoFace, Source, crop_faces
from tasks.crop.crops_table import with_crops
from tasks.crop.settings import CropSettings, model_crop_settings
from tasks.crop.stage import Params as CropParams
from tasks.gate.decide import decide, deciding
from tasks.gate.decision import ANSWERS, DECISION, Contender, Decision, read_decision
from tasks.gate.score import Scores, score
from tasks.gate.settings import Params
from tasks.register.promotion_log import INTO_USE, PROMOTED, REFUSED, WAITING, read_records
from tasks.register.registry import fetch
from tasks.register.version_artifacts import TEST
from tasks.register.versions import Version

_POSITION = ["image_id", "shard", "offset_bytes", "size_bytes"]
_CROPS_FILE = "crops.parquet"  # written last: without it a folder is incomplete


def evaluate_challenger(paths: Paths, challenger: Version, champion: Version | None) -> Decision:
    """Score both versions on the test images and judge the challenger.

    `champion` is None for the first model ever. Raises DataError, ModelError or ParamsError if a
    file is missing or damaged.
    """
    params = load_section(paths.params, "promote", Params)
    split = read_table(paths.split)
    _check_groups(split, params, paths)
    frozen = split["image_id"][split["split"] == "test"]
    if champion is not None:
        frozen = _frozen_images(paths, champion, split)
        split = _with_frozen(split, read_table(paths.manifest), frozen)
    test = split[split["split"] == "test"].reset_index(drop=True)
    if test.empty:
        raise DataError(f"{paths.split}: holds no test picture to judge on")
    used_folders: set[Path] = set()
    new = _scored(paths, challenger, test, params, used_folders)
    old = None if champion is None else _scored(paths, champion, test, params, used_folders)
    compared = {challenger.number} | ({champion.number} if champion else set())
    looks = 1.0 if champion is None else count_looks(paths, frozen, challenger, params)
    earlier = _former_answers(paths, compared)
    decision = decide(split, frozen, new, old, params, earlier, required_groups(paths), looks)
    _remove_unused(paths, used_folders)
    return decision


def required_groups(paths: Paths) -> dict[str, Mapping[str, Sequence[str]]]:
    """Return the groups that must be testable for an automatic promotion, by key of params.

    They are the group that the model is fine-tuned on and the children for whom it is retrained: a
    version made for them is not promoted unless harm to them can be ruled out.
    """
    content = load_yaml(paths.params)
    groups: dict[str, Mapping[str, Sequence[str]]] = {}
    for key, group in (
        ("finetune.subset", content.get("finetune", {}).get("subset")),
        (
            "retrain.child_age_bands",
            {"age_band": content.get("retrain", {}).get("child_age_bands")},
        ),
    ):
        if group and all(group.values()):
            groups[key] = group
    return groups


def count_looks(paths: Paths, frozen: pd.Series, challenger: Version, params: Params) -> float:
    """Count how often the frozen images were used for a decision, this one included.

    An earlier decision against a model in use counts by the share of today's frozen images that its
    version answered, so fresh images count for less. The same decision once more is not counted
    again.
    """
    today = set(frozen)
    looks = 1.0
    for decision, answered in _decisions(paths):
        judged = (decision.challenger.version, decision.challenger.digest)
        same = judged == (challenger.number, challenger.digest)
        if decision.champion is None or (same and decision.params == deciding(params)):
            continue
        looks += len(today & answered) / max(len(today), 1)
    return looks


def judged_answers(paths: Paths) -> list[pd.Series]:
    """Return the answers of every judged version that saved them, oldest first."""
    judged = _judgements(paths)
    versions = dict.fromkeys(zip(judged["version"], judged["digest"], strict=True))
    found = [_answers_of(paths, int(number), digest) for number, digest in versions]
    return [answers for answers in found if answers is not None]


def _judgements(paths: Paths) -> pd.DataFrame:
    records = read_records(paths)
    return records[records["action"].isin([PROMOTED, REFUSED, WAITING])]


def _decisions(paths: Paths) -> Iterator[tuple[Decision, set[str]]]:
    """Yield every recorded decision, with the images that its version answered."""
    judged = _judgements(paths)
    names = judged["decision_id"].str.partition(".")[0]
    for number, digest, name in dict.fromkeys(
        zip(judged["version"], judged["digest"], names, strict=True)
    ):
        decision = read_decision(paths.decision(int(number)) / f"{name}.json")
        answers = None if decision is None else _answers_of(paths, int(number), digest)
        if decision is not None and answers is not None:
            yield decision, set(answers.index)


def _with_frozen(split: pd.DataFrame, manifest: pd.DataFrame, frozen: pd.Series) -> pd.DataFrame:
    """Return the split table with every frozen image of the manifest, labeled as there."""
    test = manifest[manifest["image_id"].isin(frozen)]
    added = [name for name in split.columns if name not in test.columns]
    test = test.merge(split[["image_id", *added]], on="image_id", how="left").assign(split="test")
    others = split[~split["image_id"].isin(test["image_id"])]
    return pd.concat([test, others], ignore_index=True)


def _scored(
    paths: Paths, version: Version, test: pd.DataFrame, params: Params, used_folders: set[Path]
) -> tuple[Contender, Scores, pd.DataFrame]:
    """Return a version, its answers about the test images, and the images that it has seen."""
    folder = fetch(paths, version.number)
    settings = model_crop_settings(folder)
    parts = []
    for images, shards in _crops_of_all(paths, settings, test):
        used_folders.add(shards)
        positions = images[_POSITION].astype({"offset_bytes": int, "size_bytes": int})
        parts.append(score(folder, positions, shards, params))
    scores = Scores(parts[0].labels, pd.concat([part.table for part in parts], ignore_index=True))
    contender = Contender(version.number, version.digest, version.run_id)
    return contender, scores, load_seen(folder)


def _crops_of_all(
    paths: Paths, settings: CropSettings, table: pd.DataFrame
) -> list[tuple[pd.DataFrame, Path]]:
    """Return images with their crops as `crops_for` does, also those without one in the run."""
    cut = table["shard"].notna()
    if not cut.all() and not _crops_differ(paths, settings):
        missing = table[~cut]
        return [(table[cut], paths.crop_shards), _extra_crops(paths, settings, missing)]
    return [crops_for(paths, settings, table)]


def crops_for(
    paths: Paths, settings: CropSettings, table: pd.DataFrame
) -> tuple[pd.DataFrame, Path]:
    """Return images with crops cut as a model needs them, and the folder of shards.

    The result has all columns of `table` (rows of the split table) if the run's crops fit the
    settings. Otherwise it holds `image_id` and the crop's position, for images in which a face was
    found, and the folder is below work/gate.
    """
    if not _crops_differ(paths, settings):
        return table, paths.crop_shards
    return _extra_crops(paths, settings, table)


def _crops_differ(paths: Paths, settings: CropSettings) -> bool:
    """Return whether the run's crops were cut with other settings than a model needs."""
    ours = json.loads(paths.crop_settings.read_text(encoding="utf-8"))
    return bool(asdict(settings) != ours)


def _extra_crops(
    paths: Paths, settings: CropSettings, table: pd.DataFrame
) -> tuple[pd.DataFrame, Path]:
    """Return the positions of crops made for a decision, and their folder."""
    request = json.dumps([asdict(settings), table["image_id"].tolist()], sort_keys=True)
    folder = paths.work("gate", hashlib.sha256(request.encode()).hexdigest()[:16])
    if not (folder / _CROPS_FILE).is_file():
        _recrop(paths, settings, table, folder)
    return read_table(folder / _CROPS_FILE), folder


def _recrop(paths: Paths, settings: CropSettings, table: pd.DataFrame, folder: Path) -> None:
    params = load_section(paths.params, "crop", CropParams)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rows = table[["path", "width_px", "height_px"]].itertuples(index=False)
    sources = (Source(paths.raw / row.path, row.width_px * row.height_px) for row in rows)
    cuts = track(crop_faces(sources, settings, params.workers), len(table), "crop")
    outcomes: list[FaceCrop | NoFace] = []

    def members():  # type: ignore[no-untyped-def]
        for image_id, outcome in zip(table["image_id"], cuts, strict=True):
            outcomes.append(replace(outcome, png=b"") if isinstance(outcome, FaceCrop) else outcome)
            if isinstance(outcome, FaceCrop):
                yield f"{image_id}.png", outcome.png

    places = list(write_shards(members(), folder, params.images_per_shard))
    crops = with_crops(table, outcomes, places)
    write_table(crops[_POSITION], folder / _CROPS_FILE)


def _remove_unused(paths: Paths, used: set[Path]) -> None:
    """Remove crops that only earlier decisions needed."""
    home = paths.work("gate", "any").parent
    for folder in home.iterdir() if home.is_dir() else ():
        if folder not in used:
            shutil.rmtree(folder, ignore_errors=True)


def _frozen_images(paths: Paths, champion: Version, split: pd.DataFrame) -> pd.Series:
    """Return the images that a version is to be compared on: its test split and all it answered.

    The answers add images in which it found no face, and those frozen before it. Subjects whose id
    is spelled differently today (`current_subjects`) get the split of today's id; those outside its
    test split are left out, since the challenger is trained on them.
    """
    path = fetch(paths, champion.number) / TEST
    try:
        test = read_csv(path, dtype="str", keep_default_na=False)
        ids, moved = test["image_id"], _moved_to_training(test, split)
    except (FileNotFoundError, KeyError, ValueError) as error:
        fault = " ".join(str(error).split())[:120]
        raise DataError(f"{path}: does not say which pictures were frozen ({fault})") from None
    answered = _answers_of(paths, champion.number, champion.digest)
    added = [] if answered is None else [answered.index.to_series()]
    frozen = pd.concat([ids, *added]).drop_duplicates()
    return frozen[~frozen.isin(moved)].reset_index(drop=True)


def _moved_to_training(test: pd.DataFrame, split: pd.DataFrame) -> pd.Series:
    """Return images of a former test split whose subjects are in training by today's id."""
    if "subject_id" not in test.columns:
        return test["image_id"].iloc[:0]
    people = current_subjects(test)["subject_id"]
    trained = split.loc[split["split"] != "test", "subject_id"]
    return test["image_id"][(people != test["subject_id"]) & people.isin(trained)]


def _former_answers(paths: Paths, excluded: Collection[int]) -> dict[int, pd.Series]:
    """Return the answers of versions that were once in use, except the two compared."""
    records = read_records(paths)
    promoted = records[records["action"].isin(INTO_USE)].drop_duplicates(["version", "digest"])
    found = {
        int(row.version): _answers_of(paths, int(row.version), str(row.digest))
        for row in promoted.itertuples()
        if row.version and int(row.version) not in excluded
    }
    return {number: answers for number, answers in found.items() if answers is not None}


def _answers_of(paths: Paths, number: int, digest: str) -> pd.Series | None:
    """Return a version's answers when it was judged; None if they were not saved."""
    folder = paths.decision(number)
    decision = read_decision(folder / DECISION)
    if decision is None or decision.challenger.digest != digest:
        return None  # from another registry, which also counted from 1
    try:
        table = read_csv(folder / ANSWERS, dtype="str", keep_default_na=False)
        return table.set_index("image_id")["answer"]
    except FileNotFoundError:
        return None
    except (KeyError, ValueError) as error:
        fault = " ".join(str(error).split())[:120]
        raise DataError(f"{folder / ANSWERS}: is no table of answers ({fault})") from None


def _check_groups(split: pd.DataFrame, params: Params, paths: Paths) -> None:
    by_key = {"by": params.by, "protected": [name for group in params.protected for name in group]}
    for key, columns in by_key.items():
        unknown = [name for name in dict.fromkeys(columns) if name not in split.columns]
        if unknown:
            raise DataError(
                f"{paths.params}: promote.{key}: no column {', '.join(unknown)} in the data"
            )
