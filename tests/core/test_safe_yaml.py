"""YAML from outside: bombs, doubled keys and endless texts end in one error, at once."""

import pytest
import yaml

from tasks.core.safe_yaml import load

_ALIASES = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join(['*' + before] * 10)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
_MERGES = "a: &a {k: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{','.join(['*' + before] * 10)}]}}\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", r"key 'a' occurs twice \(lines 1 and 3\)"),
        ("{a: 1, a: 2}", "key 'a' occurs twice"),
        (_ALIASES, "larger than"),
        (_MERGES, "larger than"),
        ("a: &a [*a]", "refers to itself"),
        ("[" * 70, "nested too deeply"),
        ("[" * 5000, "nested too deeply"),
        ("- " * 5000, "nested too deeply"),
        ("a: 2020-99-99", "month"),
        ("a: " + "9" * 5000, "line 1: a number of 5,000 characters"),
        ("b: 1\na: 1" + ":59" * 300_000, "line 2: a number of 900,001 characters"),
        ("a: 0x" + "f" * 500_000, "a number of"),
        ("a: 1" + ":59" * 300_000 + ".5", "a number of"),
        ("# " + "x" * 2_000_000, "characters"),
    ],
)
def test_hostile_documents_are_refused(text, message):
    with pytest.raises(yaml.YAMLError, match=message):
        load(text)


def test_merge_keys_and_aliases_of_ordinary_size_work():
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: *a\n"
    assert load(text) == yaml.safe_load(text)


def test_brackets_of_ordinary_depth_work():
    text = "[" * 60 + "]" * 60
    assert load(text) == yaml.safe_load(text)
