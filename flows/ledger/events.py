"""What the ledger's events say, read in their order: batches, trainings and passes as they are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

BATCHES: tuple[str, ...] = (
    "batch",
    "dataset",
    "digest",
    "state",
    "n_files",
    "n_pictures",
    "n_subjects",
    "received_at",
    "decided_at",
    "reason",
    "drift",
)
IMAGES: tuple[str, ...] = (
    "batch",
    "dataset",
    "path",
    "sha256",
    "image_id",
    "subject_id",
    "emotion",
    "age_band",
    "gender",
    "state",
)
TRAININGS: tuple[str, ...] = ("batch", "pass_id", "digest", "version")
PASSES: tuple[str, ...] = (
    "pass_id",
    "process",
    "trigger",
    "started_at",
    "ended_at",
    "state",
    "detail",
    "version",
)


@dataclass(frozen=True)
class Event:
    """One thing that happened; `kind` and `detail` as the methods of `Ledger` write them."""

    id: int
    at: str
    kind: str
    batch: str | None
    pass_id: int | None
    detail: dict[str, Any]


def batches_of(events: Sequence[Event]) -> list[dict[str, Any]]:
    """Fold events into batches.

    Returns
    -------
    list of dict
        The columns `BATCHES`, and `event` (the one that brought the images), `open` (what was
        begun and is not done, or None), `trained`, `trained_events` (of each delivery under this
        name that was trained with), `untracked`, `place`, `source`, `whole` (it is a data set and
        not a part of one) and `advised` (the model in use, "" for none, when its drift was asked
        for since it came; None where it was not).
    """
    rows: dict[str, dict[str, Any]] = {}
    before: dict[str, dict[str, Any]] = {}  # what an undone step goes back to
    for event in events:
        name = event.batch or ""
        if event.kind == "taking_in":
            earlier = rows.pop(name, None)  # it comes again: to the end of the order
            rows[name] = _arrived(event)
            if earlier is not None:
                before[name] = earlier
                rows[name]["trained_events"] = earlier["trained_events"]
        elif event.kind == "undone" and rows.get(name, {}).get("open"):
            _undo(rows, before, name)
        elif name in rows:
            _change(rows[name], event)
    return list(rows.values())


def trainings_of(events: Sequence[Event]) -> list[dict[str, Any]]:
    """Return the columns `TRAININGS`, a row per batch and pass.

    The version is the one that the pass ended with: two versions may have the same weights, where
    one saw more images and kept them. Only of a pass that did not end the weights' digest tells.
    """
    by_pass = {row["pass_id"]: row["version"] for row in passes_of(events)}
    known = [event.detail for event in events if event.kind in ("promoted", "registered")]
    versions = {detail["digest"]: detail["version"] for detail in known}
    return [
        {
            "batch": event.batch,
            "pass_id": event.pass_id,
            "digest": event.detail["digest"],
            "version": by_pass.get(event.pass_id) or versions.get(event.detail["digest"]),
        }
        for event in events
        if event.kind == "trained"
    ]


def passes_of(events: Sequence[Event]) -> list[dict[str, Any]]:
    """Return the columns `PASSES`, a row per pass."""
    rows: dict[int | None, dict[str, Any]] = {}
    for event in events:
        if event.kind == "pass_started":
            rows[event.pass_id] = {
                "pass_id": event.pass_id,
                "process": event.detail["process"],
                "trigger": event.detail["trigger"],
                "started_at": event.at,
                "ended_at": "",
                "state": "running",
                "detail": "",
                "version": None,
            }
        elif event.kind == "pass_ended" and event.pass_id in rows:
            rows[event.pass_id] |= {"ended_at": event.at, **event.detail}
    return list(rows.values())


def _arrived(event: Event) -> dict[str, Any]:
    detail = event.detail
    return {
        "batch": event.batch,
        **{name: detail[name] for name in ("dataset", "digest", "n_files", "n_pictures")},
        "n_subjects": detail["n_subjects"],
        "state": "taking_in",
        "received_at": event.at,
        "decided_at": "",
        "reason": "; ".join(detail["reasons"]),
        "drift": float("nan"),
        "event": event.id,
        "open": event,
        "trained": False,
        "trained_events": frozenset(),
        "untracked": False,
        "place": detail["place"],
        "source": detail["source"],
        "whole": detail["place"] == f"data/raw/{detail['dataset']}",
        "advised": None,
    }


def _undo(rows: dict[str, dict[str, Any]], before: dict[str, dict[str, Any]], name: str) -> None:
    if rows[name]["open"].kind == "withdrawing":
        rows[name]["open"] = None
        return
    del rows[name]
    if name in before:
        rows[name] = before.pop(name)


def _change(row: dict[str, Any], event: Event) -> None:
    match event.kind:
        case "withdrawing":
            row["open"] = event
        case "accepted" | "quarantined" | "withdrawn":
            begun = row["open"].detail if row["open"] else {}
            row |= {"state": event.kind, "decided_at": event.at, "open": None}
            if begun:
                row |= {"place": begun["place"], "reason": "; ".join(begun["reasons"])}
            row["untracked"] = event.kind != "quarantined"
        case "tracked":
            row["untracked"] = False
        case "trained":
            row |= {"trained": True, "trained_events": row["trained_events"] | {row["event"]}}
        case "drift":
            effect = event.detail["effect"]
            row["drift"] = float("nan") if effect is None else effect
            row["advised"] = event.detail.get("model", "")  # not kept in ledgers of before
