"""`affectgap lineage`: which models saw a picture or a person; what and whom a model saw.

Answers come from what is kept for good: `seen.csv` and `test.csv` in every model's folder, the
ledger of batches, and the tables of the last run. A picture that was withdrawn since, or never
taken in, is still told of.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from flows.lineage_sources import SeenBy, all_models, all_pictures, left_out_by, with_places
from tasks.core.errors import UserError
from tasks.core.files import sha256_of
from tasks.core.models.checkpoint import SEEN_COLUMNS
from tasks.core.paths import Paths
from tasks.core.tables import write_csv
from tasks.core.text import clean

_ID_DIGITS = 16
_HEX = re.compile(r"[0-9a-f]+")
_STAGES = {  # of seen.csv, and what a picture's part was there
    ("train", "train"): "trained on",
    ("train", "validation"): "its epoch chosen by",
    ("finetune", "train"): "fine-tuned on",
    ("finetune", "validation"): "its fine-tuning's epoch chosen by",
    ("replay", "train"): "shown again in fine-tuning",
    ("interpolate", "validation"): "its coefficient chosen by",
    ("choose", "validation"): "its strategy chosen by",
}
_UNKNOWN = "unknown"
_LOST = "its files cannot be read: not known whom it saw"
_SHOWN = 40  # pictures of a person that are listed one by one


def lineage_lines(paths: Paths, what: str, out: Path | None = None) -> list[str]:
    """Answer where something came from and where it went.

    Parameters
    ----------
    paths
        The project's paths.
    what
        An `image_id` (16 hex digits) or sha256, a picture's file anywhere or its path below
        data/raw, a `subject_id`, a batch, or a version of the model (its number or digest).
    out
        Where to write the answer's pictures as a CSV, a row a picture and part in a model.

    Returns
    -------
    list of str
        Lines for a person.

    Raises
    ------
    UserError
        One line where nothing of that name is known.
    """
    pictures = all_pictures(paths)
    models = all_models(paths)
    for model in models:
        if what in model.names:
            rows = _with_what_is_known(paths, model.seen, pictures)
            return [*_of_model(model, rows), *_write(rows.assign(model=model.title), out)]
    found, heading = _choose(paths, what, pictures)
    chosen = with_places(paths, found)
    lines = [heading, *_of_pictures(paths, chosen), *_of_models(chosen, models)]
    return [*lines, *_write(_parts(chosen, models), out)]


def _choose(paths: Paths, what: str, pictures: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Find the pictures that a word means."""
    digest = what.lower()
    if Path(what).is_file():
        digest = sha256_of(Path(what))
    if _HEX.fullmatch(digest) and len(digest) in (_ID_DIGITS, 64):
        found = pictures[pictures["image_id"] == digest[:_ID_DIGITS]]
        if len(found):
            return found, f"picture {digest[:_ID_DIGITS]}"
        if Path(what).is_file():
            raise UserError(f"{what}: its content ({digest[:_ID_DIGITS]}) was never taken in")
    name = _cleaned(what)
    for column, heading in (("subject_id", "person"), ("path", "picture"), ("batch", "batch")):
        found = _with_name(pictures, column, what, name) if name else pictures.iloc[:0]
        if len(found):
            return found, f"{heading} {name}"
    ends = pictures["subject_id"].str.partition("/", expand=False).str[2] == name
    people = sorted(set(pictures.loc[ends, "subject_id"]))
    if len(people) == 1:
        return pictures[ends], f"person {people[0]}"
    if people:
        raise UserError(f"{what}: several people are called so: {', '.join(people)}")
    raise UserError(
        f"{what}: no picture, person, batch or model version of that name is known here"
    )


def _with_name(pictures: pd.DataFrame, column: str, what: str, name: str) -> pd.DataFrame:
    """Return the pictures whose column holds a word, or else one that is `name` when cleaned.

    A path keeps the bytes of the file's name, so that two may be alike when cleaned.
    """
    exact = pictures[pictures[column] == what]
    return exact if len(exact) else pictures[pictures[column].map(_cleaned) == name]


def _cleaned(name: str) -> str:
    return "/".join(map(clean, name.split("/")))


def _of_pictures(paths: Paths, chosen: pd.DataFrame) -> Iterator[str]:
    """Say of each picture what it is, how it came and where it is now."""
    reasons = left_out_by(paths)
    people = chosen["subject_id"].nunique()
    # One that came twice, in a batch that was withdrawn and in a later one, has two rows.
    n = chosen["image_id"].nunique()
    yield f"  {n} {_word(n, 'picture', 'pictures')} of {people} {_word(people, 'person', 'people')}"
    for row in chosen.iloc[:_SHOWN].itertuples(index=False):
        labels = f"{row.emotion}, {row.age_band}, {row.gender} as recorded"
        came = f", came in batch {row.batch}" if row.batch else ""
        split = f", {row.split} split" if row.split else ""
        yield f"  {row.image_id} {row.subject_id}: labelled {labels}{came}{split}"
        yield f"    {row.place}{reasons.get(row.image_id, '')}"
    if len(chosen) > _SHOWN:
        yield f"  … and {len(chosen) - _SHOWN} more (--out FILE.csv lists all)"


def _of_models(chosen: pd.DataFrame, models: list[SeenBy]) -> Iterator[str]:
    """Say of each model what part the pictures, or others of the same people, had in it."""
    if not models:
        yield "  there is no model yet"
    chosen = chosen.drop_duplicates("image_id")
    for model in models:
        if model.lost:
            yield f"  {model.title}: {_LOST}"
            continue
        own = model.seen[model.seen["image_id"].isin(chosen["image_id"])]
        parts = [
            f"{_part(stage, role)} {group['image_id'].nunique()}"
            for (stage, role), group in own.groupby(["stage", "role"], sort=False)
        ]
        tested = int(chosen["image_id"].isin(model.tested).sum())
        if tested:
            parts.append(f"judged on {tested}")
        others = model.seen[model.seen["subject_id"].isin(chosen["subject_id"])]
        n_others = others.loc[~others["image_id"].isin(chosen["image_id"]), "image_id"].nunique()
        if own.empty and n_others:
            other = _word(n_others, "other picture", "other pictures")
            parts.append(f"saw {n_others} {other} of the same people")
        saw = (
            f"saw {own['image_id'].nunique()} of {len(chosen)}" if len(own) else "saw none of them"
        )
        yield f"  {model.title}: {saw}" + (f" ({'; '.join(parts)})" if parts else "")


def _of_model(model: SeenBy, rows: pd.DataFrame) -> Iterator[str]:
    """Say what and whom a model saw."""
    yield model.title
    if model.lost:
        yield f"  {_LOST}"
        return
    once = rows.drop_duplicates("image_id")
    yield f"  saw {len(once)} pictures of {once['subject_id'].nunique()} people"
    for (stage, role), group in rows.groupby(["stage", "role"], sort=False):
        yield f"  {_part(stage, role)} {_counted(group)}"
    for (band, gender), group in once.groupby(["age_band", "gender"]):
        yield f"  {band}, {gender} as recorded: {_counted(group)}"
    for batch, group in once.groupby("batch"):
        yield f"  {f'batch {batch}' if batch else 'in no batch'}: {_counted(group)}"
    if nameless := int((once["path"] == _UNKNOWN).sum()):
        yield f"  in no table of the last run and in no batch: {nameless} of them"
    if gone := int((~once["there"]).sum()):
        yield f"  not in data/raw any more: {gone} {_word(gone, 'picture', 'pictures')}"
    if model.tested:
        yield f"  judged on {len(model.tested)} pictures of {model.tested_people} other people"


def _with_what_is_known(paths: Paths, seen: pd.DataFrame, pictures: pd.DataFrame) -> pd.DataFrame:
    """Add to rows of `seen.csv` what the tables and the ledger say of each picture."""
    known = pictures[pictures["image_id"].isin(seen["image_id"])].drop_duplicates("image_id")
    known = with_places(paths, known.drop(columns="subject_id"))
    rows = seen.merge(known, on="image_id", how="left")
    text = [name for name in rows if name != "there"]
    rows[text] = rows[text].fillna(_UNKNOWN)
    return rows.assign(there=rows["there"].fillna(False).astype(bool))


def _parts(chosen: pd.DataFrame, models: list[SeenBy]) -> pd.DataFrame:
    """Return a row a picture and part in a model, and one for each picture that none saw."""
    seen = [model.seen.assign(model=model.title).drop(columns="subject_id") for model in models]
    empty = pd.DataFrame(columns=[*SEEN_COLUMNS, "model"]).drop(columns="subject_id")
    return chosen.merge(pd.concat([empty, *seen]), on="image_id", how="left")


def _write(rows: pd.DataFrame, out: Path | None) -> list[str]:
    if out is None:
        return []
    write_csv(rows, out)
    return [f"  {out}"]


def _part(stage: str, role: str) -> str:
    return _STAGES.get((stage, role), f"{stage} ({role})")


def _counted(table: pd.DataFrame) -> str:
    n, people = table["image_id"].nunique(), table["subject_id"].nunique()
    return f"{n} {_word(n, 'picture', 'pictures')} of {people} {_word(people, 'person', 'people')}"


def _word(number: int, one: str, many: str) -> str:
    return one if number == 1 else many
