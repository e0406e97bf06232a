"""Targets of rollbacks after several transitions, with a fake store."""

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from tasks.core.errors import ModelError
from tasks.core.paths import Paths
from tasks.register import alias_transitions
from tasks.register.alias_transitions import Move, make, way_back
from tasks.register.promotion_log import in_use, read_records
from tasks.register.versions import PUT_BY, Version


class Store:
    """The part of MLflow's client that transitions use."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self.tags: dict[int, dict[str, str]] = {}
        self.notes: dict[str, str] = {}
        self.aliases: dict[str, int] = {}

    def set_registered_model_tag(self, name, tag, text):
        self.notes[tag] = text

    def delete_registered_model_tag(self, name, tag):
        del self.notes[tag]

    def set_model_version_tag(self, name, number, tag, text):
        self.tags.setdefault(int(number), {})[tag] = text

    def set_registered_model_alias(self, name, alias, number):
        self.aliases[alias] = int(number)

    def delete_registered_model_alias(self, name, alias):
        self.aliases.pop(alias, None)

    def promote(self, *numbers):
        for number in numbers:
            left = self.aliases.get("champion")
            make(self.paths, self, Move("promoted", left, number, left, f"decision-{number}"))

    def roll_back(self):
        make(self.paths, self, way_back(self.paths, self, "why", "who"))
        return self.aliases["champion"]


@pytest.fixture
def store(tmp_path, monkeypatch):
    store = Store(Paths(tmp_path))
    when = datetime(2026, 1, 1, tzinfo=UTC)

    def find(client, number):
        return Version(number, f"digest-{number}", "", (), store.tags.get(number, {}), when)

    monkeypatch.setattr(alias_transitions, "find", find)
    monkeypatch.setattr(
        alias_transitions,
        "registered_model",
        lambda client: SimpleNamespace(tags=client.notes, aliases=client.aliases),
    )
    monkeypatch.setattr(alias_transitions, "aliases_of", lambda client: dict(client.aliases))
    return store


def test_rolling_back_does_not_go_round_in_a_circle(store):
    """4 replaced 3, and 3, approved again, replaced 4."""
    store.promote(1, 2, 3, 4, 3)
    assert [store.roll_back() for _ in range(3)] == [4, 2, 1]
    with pytest.raises(ModelError, match="no previous one"):
        store.roll_back()


def test_a_circle_in_an_older_store_is_left(store):
    store.promote(3, 4)
    store.tags[3]["replaced"] = "4"
    assert store.roll_back() == 3
    with pytest.raises(ModelError, match="no previous one"):
        store.roll_back()


def test_what_a_rollback_took_out_of_use_is_not_gone_back_to(store):
    store.promote(1, 2, 3)
    assert [store.roll_back(), store.roll_back()] == [2, 1]
    store.promote(3, 4)  # 3 by an approval
    assert [store.roll_back(), store.roll_back()] == [3, 1]


def test_a_version_says_which_line_put_it_into_use(store):
    store.promote(1, 2)
    assert store.tags[2][PUT_BY] == "decision-2"
    store.roll_back()
    assert store.tags[1][PUT_BY] == in_use(read_records(store.paths))["decision_id"]
