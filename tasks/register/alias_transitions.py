"""Crash-safe transitions of the aliases, with a write-ahead note that the next call completes.

Within a clone a lock serializes the transitions; two clones that share a store have no common lock.
So the note is read again, with the aliases, right before they move: of two clones that move at the
same moment, the one whose note was overwritten, or whose champion was replaced, gives up.
"""

import json
import secrets
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from mlflow import MlflowClient

from tasks.core.errors import AffectGapError, ModelError
from tasks.core.paths import Paths
from tasks.register.promotion_log import (
    PROMOTED,
    ROLLED_BACK,
    append_record,
    read_records,
    taken_out,
)
from tasks.register.versions import (
    CHAMPION,
    NAME,
    PREVIOUS,
    PUT_BY,
    REPLACED,
    Version,
    aliases_of,
    find,
    registered_model,
)

_MOVE = "affectgap.move"  # tag of the registered model: a transition that has begun
_NONE = "none"  # MLflow does not tell an empty tag from an absent one


@dataclass(frozen=True)
class Move:
    """A transition of the aliases `champion` and `previous`, as noted before it is made."""

    action: str
    left: int | None
    champion: int
    previous: int | None
    decision: str = ""  # decision_id of the record that explains it, if already written
    record: dict[str, str] = field(default_factory=dict)


class OvertakenError(AffectGapError):
    """Another clone moved the champion at the same time; `by` is its version, None for none."""

    def __init__(self, by: int | None) -> None:
        now = "no version" if by is None else f"version {by}"
        super().__init__(
            f"another clone changed what is in use at the same moment, to {now}; look with "
            "`affectgap models`, then run the command again"
        )
        self.by = by


def way_back(paths: Paths, client: MlflowClient, why: str, by: str) -> Move:
    """Plan the rollback from the current version to the previous one."""
    aliases = aliases_of(client)
    left, back = aliases.get(CHAMPION), aliases.get(PREVIOUS)
    if left is None:
        raise ModelError("no model is in use; `affectgap retrain` trains and promotes the first")
    if back is None:
        raise ModelError(f"version {left} is in use and there is no previous one to go back to")
    target = find(client, back)
    record = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "action": ROLLED_BACK,
        "version": str(back),
        "digest": target.digest,
        "previous": str(left),
        "decision_id": f"rollback-{left}-{back}-{secrets.token_hex(4)}",
        "worst_group": target.tags.get("worst_group", ""),
        "worst_recall": target.tags.get("worst_recall", ""),
        "by": by,
        "why": why,
    }
    further = _further_back(paths, client, target, left)
    return Move(ROLLED_BACK, left, back, further, record["decision_id"], record)


def _further_back(paths: Paths, client: MlflowClient, target: Version, left: int) -> int | None:
    """Return the target of a second rollback: never a version that was itself rolled back."""
    records, visited, before = read_records(paths), {target.number, left}, target
    while (number := before.tags.get(REPLACED, _NONE)) != _NONE:
        try:
            before = find(client, int(number))
        except ModelError:
            return None  # deleted in the store
        demotion = taken_out(records, before.number, before.digest)
        if before.number not in visited and (demotion is None or demotion["action"] != ROLLED_BACK):
            return before.number
        if before.number in visited - {left}:
            return None  # an older store may contain a cycle
        visited.add(before.number)
    return None


def make(paths: Paths, client: MlflowClient, move: Move) -> None:
    """Note a transition, make it, and remove the note; raises OvertakenError."""
    note = json.dumps(asdict(move))
    client.set_registered_model_tag(NAME, _MOVE, note)
    _carry_out(paths, client, move, note)


def finish(paths: Paths, client: MlflowClient) -> Move | None:
    """Complete a transition that was interrupted and return it; None if there is none."""
    model = registered_model(client)
    note = model.tags.get(_MOVE) if model else None
    if not note:
        return None
    move = Move(**json.loads(note))
    try:
        _carry_out(paths, client, move, note)
    except OvertakenError:
        return None
    return move


def _carry_out(paths: Paths, client: MlflowClient, move: Move, note: str) -> None:
    """Make every step of a transition; each is idempotent."""
    first = move.action == PROMOTED and REPLACED not in find(client, move.champion).tags
    if first:
        # Only the first time: a version that came back would otherwise point to a later one.
        before = _NONE if move.left is None else str(move.left)
        client.set_model_version_tag(NAME, str(move.champion), REPLACED, before)
    if move.decision:
        client.set_model_version_tag(NAME, str(move.champion), PUT_BY, move.decision)
    try:
        _assert_not_overtaken(client, move, note)
    except OvertakenError:
        if first:
            client.delete_model_version_tag(NAME, str(move.champion), REPLACED)
        raise
    if move.previous is None:
        client.delete_registered_model_alias(NAME, PREVIOUS)
    else:
        client.set_registered_model_alias(NAME, PREVIOUS, str(move.previous))
    client.set_registered_model_alias(NAME, CHAMPION, str(move.champion))
    if move.record:
        append_record(paths, move.record)
    client.delete_registered_model_tag(NAME, _MOVE)


def _assert_not_overtaken(client: MlflowClient, move: Move, note: str) -> None:
    """Raise OvertakenError if the note is another clone's, or another version is the champion."""
    model = registered_model(client)
    noted = model.tags.get(_MOVE) if model else None
    in_use = int(model.aliases[CHAMPION]) if model and CHAMPION in model.aliases else None
    if noted is not None and noted != note:
        raise OvertakenError(json.loads(noted)["champion"])
    if in_use not in (move.left, move.champion):
        client.delete_registered_model_tag(NAME, _MOVE)
        raise OvertakenError(in_use)
