"""Moves of the aliases, each written down before its first step, so that the next call ends it."""

import json
import secrets
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from mlflow import MlflowClient

from tasks.core.errors import ModelError
from tasks.core.paths import Paths
from tasks.register.records import PROMOTED, ROLLED_BACK, append_record
from tasks.register.versions import (
    CHAMPION,
    NAME,
    PREVIOUS,
    REPLACED,
    aliases_of,
    find,
    registered_model,
)

_MOVE = "affectgap.move"  # tag of the registered model: a move that was begun
_NONE = "none"  # as a tag's value, since MLflow takes no empty one for absent


@dataclass(frozen=True)
class Move:
    """A change of what is in use, as it is written down before it is made."""

    action: str
    left: int | None
    champion: int
    previous: int | None
    record: dict[str, str] = field(default_factory=dict)


def way_back(client: MlflowClient, why: str, by: str) -> Move:
    """Plan the move from the version in use to the previous one."""
    aliases = aliases_of(client)
    left, back = aliases.get(CHAMPION), aliases.get(PREVIOUS)
    if left is None:
        raise ModelError("no model is in use; `affectgap retrain` trains and promotes the first")
    if back is None:
        raise ModelError(f"version {left} is in use and there is no previous one to go back to")
    target = find(client, back)
    before = target.tags.get(REPLACED, _NONE)
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
    return Move(ROLLED_BACK, left, back, None if before == _NONE else int(before), record)


def make(paths: Paths, client: MlflowClient, move: Move) -> None:
    """Write a move down, make it, and take the note away."""
    client.set_registered_model_tag(NAME, _MOVE, json.dumps(asdict(move)))
    _carry_out(paths, client, move)


def finish(paths: Paths, client: MlflowClient) -> Move | None:
    """Carry out a move that was begun and not ended; returns it."""
    model = registered_model(client)
    note = model.tags.get(_MOVE) if model else None
    if not note:
        return None
    move = Move(**json.loads(note))
    _carry_out(paths, client, move)
    return move


def _carry_out(paths: Paths, client: MlflowClient, move: Move) -> None:
    """Take every step of a move; each may have been taken before."""
    if move.action == PROMOTED:
        before = _NONE if move.left is None else str(move.left)
        client.set_model_version_tag(NAME, str(move.champion), REPLACED, before)
    if move.previous is None:
        client.delete_registered_model_alias(NAME, PREVIOUS)
    else:
        client.set_registered_model_alias(NAME, PREVIOUS, str(move.previous))
    client.set_registered_model_alias(NAME, CHAMPION, str(move.champion))
    if move.record:
        append_record(paths, move.record)
    client.delete_registered_model_tag(NAME, _MOVE)
