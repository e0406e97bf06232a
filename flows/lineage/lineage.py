"""`affectgap lineage`: which models saw an image or subject, and what a model saw.

The answers come from files that are stored permanently: `seen.csv` and `test.csv` of every model,
the ledger of batches, and the tables of the last run. Images that were withdrawn or rejected are
included.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from flows.lineage.sources import (
    ModelLineage,
    all_models,
    known_images,
    reject_reasons,
    with_locations,
)
from tasks.core.errors import UserError
from tasks.core.files import sha256_of
from tasks.core.models.checkpoint import SEEN_COLUMNS
from tasks.core.paths import Paths
from tasks.core.tables import write_csv
from tasks.core.text import clean

_ID_DIGITS = 16
_HEX = re.compile(r"[0-9a-f]+")
_ROLES = {  # (stage, role) of seen.csv, in words
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
_MAX_LISTED = 40  # images that are listed one by one


def lineage_lines(paths: Paths, term: str, out: Path | None = None) -> list[str]:
    """Return lines on the origin of images and the models that used them.

    `term` is an `image_id` (16 hex digits) or sha256, an image file anywhere or its path below
    data/raw, a `subject_id`, a batch, or a version of the model (its number or digest). The CSV
    `out` gets one row per image and role in a model. Raises UserError if nothing of that name is
    known.
    """
    known = known_images(paths)
    models = all_models(paths)
    for model in models:
        if term in model.names:
            rows = _with_records(paths, model.seen, known)
            table = rows.assign(model=model.title)
            return [*_describe_model(model, rows), *_write_if_asked(table, out)]
    images, heading = _choose(paths, term, known)
    chosen = with_locations(paths, images)
    lines = [heading, *_describe_images(paths, chosen), *_describe_models(chosen, models)]
    return [*lines, *_write_if_asked(_roles_table(chosen, models), out)]


def _choose(paths: Paths, term: str, known: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return the images that a search term means, and a heading."""
    digest = term.lower()
    if Path(term).is_file():
        digest = sha256_of(Path(term))
    if _HEX.fullmatch(digest) and len(digest) in (_ID_DIGITS, 64):
        images = known[known["image_id"] == digest[:_ID_DIGITS]]
        if len(images):
            return images, f"picture {digest[:_ID_DIGITS]}"
        if Path(term).is_file():
            raise UserError(f"{term}: its content ({digest[:_ID_DIGITS]}) was never imported")
    name = _cleaned(term)
    for column, heading in (("subject_id", "person"), ("path", "picture"), ("batch", "batch")):
        images = _with_name(known, column, term, name) if name else known.iloc[:0]
        if len(images):
            return images, f"{heading} {name}"
    matches = known["subject_id"].str.partition("/", expand=False).str[2] == name
    people = sorted(set(known.loc[matches, "subject_id"]))
    if len(people) == 1:
        return known[matches], f"person {people[0]}"
    if people:
        raise UserError(f"{term}: several people have this id: {', '.join(people)}")
    raise UserError(
        f"{term}: no picture, person, batch or model version of that name is known here"
    )


def _with_name(known: pd.DataFrame, column: str, term: str, name: str) -> pd.DataFrame:
    """Return the images whose column equals the term, or else equals `name` after cleaning.

    Paths hold the file name's raw bytes, so two of them may be equal after cleaning.
    """
    exact = known[known[column] == term]
    return exact if len(exact) else known[known[column].map(_cleaned) == name]


def _cleaned(name: str) -> str:
    return "/".join(map(clean, name.split("/")))


def _describe_images(paths: Paths, chosen: pd.DataFrame) -> Iterator[str]:
    reasons = reject_reasons(paths)
    yield f"  {_count_words(chosen)}"
    for row in chosen.iloc[:_MAX_LISTED].itertuples(index=False):
        labels = f"{row.emotion}, {row.age_band}, {row.gender} as recorded"
        batch = f", came in batch {row.batch}" if row.batch else ""
        split = f", {row.split} split" if row.split else ""
        yield f"  {row.image_id} {row.subject_id}: labelled {labels}{batch}{split}"
        yield f"    {row.place}{reasons.get(row.image_id, '')}"
    if len(chosen) > _MAX_LISTED:
        yield f"  … and {len(chosen) - _MAX_LISTED} more (--out FILE.csv lists all)"


def _describe_models(chosen: pd.DataFrame, models: list[ModelLineage]) -> Iterator[str]:
    """Describe for each model the role of the images, or of others of the same subjects."""
    if not models:
        yield "  there is no model yet"
    chosen = chosen.drop_duplicates("image_id")
    for model in models:
        if model.lost:
            yield f"  {model.title}: {_LOST}"
            continue
        seen = model.seen[model.seen["image_id"].isin(chosen["image_id"])]
        parts = [
            f"{_role_words(stage, role)} {group['image_id'].nunique()}"
            for (stage, role), group in seen.groupby(["stage", "role"], sort=False)
        ]
        tested = int(chosen["image_id"].isin(model.tested).sum())
        if tested:
            parts.append(f"judged on {tested}")
        others = model.seen[model.seen["subject_id"].isin(chosen["subject_id"])]
        n_others = others.loc[~others["image_id"].isin(chosen["image_id"]), "image_id"].nunique()
        if seen.empty and n_others:
            word = _plural(n_others, "other picture", "other pictures")
            parts.append(f"saw {n_others} {word} of the same people")
        n_seen = seen["image_id"].nunique()
        saw = f"saw {n_seen} of {len(chosen)}" if n_seen else "saw none of them"
        yield f"  {model.title}: {saw}" + (f" ({'; '.join(parts)})" if parts else "")


def _describe_model(model: ModelLineage, rows: pd.DataFrame) -> Iterator[str]:
    yield model.title
    if model.lost:
        yield f"  {_LOST}"
        return
    images = rows.drop_duplicates("image_id")
    yield f"  saw {len(images)} pictures of {images['subject_id'].nunique()} people"
    for (stage, role), group in rows.groupby(["stage", "role"], sort=False):
        yield f"  {_role_words(stage, role)} {_count_words(group)}"
    for (band, gender), group in images.groupby(["age_band", "gender"]):
        yield f"  {band}, {gender} as recorded: {_count_words(group)}"
    for batch, group in images.groupby("batch"):
        yield f"  {f'batch {batch}' if batch else 'in no batch'}: {_count_words(group)}"
    if unnamed := int((images["path"] == _UNKNOWN).sum()):
        yield f"  in no table of the last run and in no batch: {unnamed} of them"
    if gone := int((~images["there"]).sum()):
        yield f"  not in data/raw any more: {gone} {_plural(gone, 'picture', 'pictures')}"
    if model.tested:
        yield f"  judged on {len(model.tested)} pictures of {model.tested_people} other people"


def _with_records(paths: Paths, seen: pd.DataFrame, all_images: pd.DataFrame) -> pd.DataFrame:
    """Add what the tables and the ledger hold about each image to rows of `seen.csv`."""
    known = all_images[all_images["image_id"].isin(seen["image_id"])].drop_duplicates("image_id")
    known = with_locations(paths, known.drop(columns="subject_id"))
    rows = seen.merge(known, on="image_id", how="left")
    text_columns = [name for name in rows if name != "there"]
    rows[text_columns] = rows[text_columns].fillna(_UNKNOWN)
    return rows.assign(there=rows["there"].fillna(False).astype(bool))


def _roles_table(chosen: pd.DataFrame, models: list[ModelLineage]) -> pd.DataFrame:
    """Return one row per image and role in a model, and one per image that no model saw."""
    seen = [model.seen.assign(model=model.title).drop(columns="subject_id") for model in models]
    empty = pd.DataFrame(columns=[*SEEN_COLUMNS, "model"]).drop(columns="subject_id")
    return chosen.merge(pd.concat([empty, *seen]), on="image_id", how="left")


def _write_if_asked(rows: pd.DataFrame, out: Path | None) -> list[str]:
    if out is None:
        return []
    write_csv(rows, out)
    return [f"  {out}"]


def _role_words(stage: str, role: str) -> str:
    return _ROLES.get((stage, role), f"{stage} ({role})")


def _count_words(table: pd.DataFrame) -> str:
    """Count images and subjects; an image that came in several batches has several rows."""
    n, people = table["image_id"].nunique(), table["subject_id"].nunique()
    images = f"{n} {_plural(n, 'picture', 'pictures')}"
    return f"{images} of {people} {_plural(people, 'person', 'people')}"


def _plural(number: int, one: str, many: str) -> str:
    return one if number == 1 else many
