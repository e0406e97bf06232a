"""The worst group of a version: kept as tags when it is judged, and said with n and interval."""

from collections.abc import Iterable, Mapping

import numpy as np

from tasks.core.headline import percent
from tasks.gate.decision import FROZEN, GROUP, NOT_JUDGED, Decision

_LONGEST = 1000  # characters of a tag


def worst_tags(decision: Decision) -> dict[str, str]:
    """Return the challenger's worst group as tags of its version; "" where none was judged.

    The interval is Wilson's with each person counted once: pictures of one person are alike.
    """
    from tasks.core.intervals import wilson  # statsmodels takes a second

    names = ("worst_group", "worst_recall", "worst_low", "worst_high", "worst_n", "worst_people")
    table, recall = decision.table, decision.worst_recall
    groups = table[(table["rule"] == GROUP) & (table["part"] == FROZEN)]
    small = groups.loc[groups["outcome"] == NOT_JUDGED, "group"]
    told = f"{len(small)} of {len(groups)} groups: {', '.join(small)}" if len(small) else ""
    tags = {**dict.fromkeys(names, ""), "notice": decision.notice, "not_judged": told[:_LONGEST]}
    rows = groups[groups["group"] == decision.worst_group]
    if rows.empty:
        return tags
    n, people = int(rows.iloc[0]["n"]), int(rows.iloc[0]["subjects"])
    confidence = float(decision.params.get("confidence", 0.95))
    low, high = wilson(np.array([recall * people]), np.array([people]), confidence)
    figures = (recall, float(low[0]), float(high[0]))
    found = (decision.worst_group, *(f"{share:.4f}" for share in figures), str(n), str(people))
    return tags | dict(zip(names, found, strict=True))


def worst_words(tags: Mapping[str, str]) -> str:
    """Say a version's worst group in one phrase; "" where its tags name none."""
    group, recall = tags.get("worst_group", ""), tags.get("worst_recall", "")
    if not group or not recall:
        return ""
    told = f"{group} {percent(float(recall))}"
    if not tags.get("worst_n"):
        return f"{told} (n and interval were not kept)"
    low, high = (percent(float(tags[name])) for name in ("worst_low", "worst_high"))
    return f"{told} ({low} to {high}; {tags['worst_n']} pictures of {tags['worst_people']} people)"


def not_judged_words(tags: Mapping[str, str]) -> str:
    """Say which groups were too small to be judged; "" where none was, or nobody kept it."""
    told = tags.get("not_judged", "")
    return f"not judged, too few people or pictures: {told}" if told else ""


def notices(tags: Iterable[Mapping[str, str]]) -> list[str]:
    """Return what must be said with the figures of these versions, each once."""
    return list(dict.fromkeys(one["notice"] for one in tags if one.get("notice")))
