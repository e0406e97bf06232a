"""Takes the rows that failed a row check out of the manifest, and marks those with warnings."""

from collections.abc import Sequence

import pandas as pd

from tasks.check.validate import Finding, plain, shown_columns
from tasks.core.tables import rejects_table

_JOIN = "; "


def split_rows(
    manifest: pd.DataFrame, facts: pd.DataFrame, findings: Sequence[Finding]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Part the manifest into rows that passed and rejects.

    Parameters
    ----------
    manifest
        One row a picture, index 0 … n - 1.
    facts
        The same rows with the derived columns that the checks looked at.
    findings
        What the row checks found, with positions in the manifest.

    Returns
    -------
    tuple of pandas.DataFrame
        The rows that passed in their order, with a column `warnings` (names joined by "; ", ""
        where there are none), and the rejects table. A rejected row appears once: its reasons and
        its details (`column = value`) are joined by "; " in the same order.
    """
    reasons = _texts(len(manifest), [finding for finding in findings if finding.quarantines])
    warnings = _texts(
        len(manifest), [found for found in findings if found.check.severity == "warning"]
    )
    bad = [position for position, found in enumerate(reasons) if found]
    rows = [_reject(manifest.iloc[at], facts.iloc[at], reasons[at]) for at in bad]
    names = [_JOIN.join(finding.check.name for finding in found) for found in warnings]
    passed = manifest.assign(warnings=pd.Series(names, index=manifest.index, dtype="str"))
    return passed.drop(index=bad).reset_index(drop=True), rejects_table(rows)


def _texts(count: int, findings: Sequence[Finding]) -> list[list[Finding]]:
    by_row: list[list[Finding]] = [[] for _ in range(count)]
    for finding in findings:
        for position in finding.positions:
            by_row[position].append(finding)
    return by_row


def _reject(row: pd.Series, facts: pd.Series, found: Sequence[Finding]) -> tuple[str, ...]:
    image_id, path = (plain(row[name]) or "" for name in ("image_id", "path"))
    reasons = _JOIN.join(finding.check.name for finding in found)
    details = _JOIN.join(_detail(facts, finding) for finding in found)
    return image_id, path, reasons, details


def _detail(facts: pd.Series, finding: Finding) -> str:
    return ", ".join(f"{name} = {_word(facts[name])}" for name in shown_columns(finding.check))


def _word(value: object) -> str:
    known = plain(value)
    if isinstance(known, float):
        return f"{known:g}"
    return "null" if known is None else str(known)
