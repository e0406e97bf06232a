"""Finds people whose ids are easily confused: `S01` and `s01`, `007` and `7`, `12.0` and `12`.

Such ids stay different people, for two of them may be; spreadsheets and hands make them of one.
Whoever knows is asked to look.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable
from functools import lru_cache

# Zeros before a number; those behind a decimal point are part of it.
_LEADING_ZEROS = re.compile(r"(?<![0-9.])0+(?=[0-9])")
# What a spreadsheet adds to a whole number that it took for a measurement.
_DECIMAL_ZEROS = re.compile(r"(?<=[0-9])\.0+$")
_SHOWN = 5


def find_lookalikes(subject_ids: Iterable[str]) -> dict[str, list[str]]:
    """Find ids that differ only in case, leading zeros, `.0` or the width of their characters.

    Parameters
    ----------
    subject_ids
        "<dataset>/<subject>"; people of two data sets are never compared.

    Returns
    -------
    dict
        Each such id, in order, to the other ids like it.
    """
    alike: dict[str, set[str]] = defaultdict(set)
    for name in subject_ids:
        alike[_key(name)].add(name)
    groups = [group for group in alike.values() if len(group) > 1]
    return {
        name: sorted(group - {name}) for group in sorted(groups, key=min) for name in sorted(group)
    }


def lookalikes_note(subject_ids: Iterable[str], of: Collection[str] | None = None) -> str:
    """Return one line that lists people whose ids are easily confused, "" where there are none.

    Parameters
    ----------
    subject_ids
        As for `find_lookalikes`.
    of
        Groups without one of these ids are left out; None: all groups count.
    """
    found = find_lookalikes(subject_ids)
    groups = {tuple(sorted([name, *others])) for name, others in found.items()}
    listed = sorted(group for group in groups if of is None or not set(of).isdisjoint(group))
    if not listed:
        return ""
    some = "; ".join(" and ".join(group) for group in listed[:_SHOWN])
    more = f"; and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return (
        "these ids differ only in case, leading zeros or `.0` and count as different people, so "
        f"correct them if they are one: {some}{more}"
    )


@lru_cache(maxsize=1 << 18)  # the inbox compares each batch with everyone there
def _key(subject_id: str) -> str:
    dataset, _, subject = subject_id.partition("/")
    plain = unicodedata.normalize("NFKC", subject).casefold()
    return f"{dataset}/{_LEADING_ZEROS.sub('', _DECIMAL_ZEROS.sub('', plain))}"
