"""Names of groups, columns and models that a spreadsheet or Markdown would interpret."""

import os

import pandas as pd
from nasty_names import cells, has_controls

from tasks.audit.csv_audit import audit_csv as audit_csv_module
from tasks.audit.csv_audit.audit_csv import audit_csv
from tasks.core.tables import read_csv

FILE = os.fsdecode(b"a|b\xff.csv")
NAMES = (
    "$x$",
    "a|b",
    "<script>alert(1)</script>",
    "=cmd()",
    "\x1b]0;title\x07",
    "two\nlines",
    "`ticks`",
)


def audited(tmp_path, settings):
    """Audit two models on people of many groups; return the folder."""
    rows = [
        {
            "image_id": f"{number}-{name}",
            "subject_id": f"{name}{number}",
            "emotion": "happiness",
            "y_pred": "happiness" if number % 3 else "anger",
            "gender": "=f|",
            "model": model,
            "=col|": name,
        }
        for model in ("m|1$a$", "[/red]`m`")
        for number in range(12)
        for name in NAMES
    ]
    pd.DataFrame(rows).to_csv(tmp_path / FILE, index=False)
    audit_csv(tmp_path / FILE, tmp_path / "out", settings, None, ["=col|"], {})
    return tmp_path / "out"


def test_names_are_text_in_every_table_and_in_the_summary(tmp_path, settings_of, monkeypatch):
    monkeypatch.setattr(audit_csv_module, "write_figures", lambda *_: [])
    out = audited(tmp_path, settings_of(resamples=200))
    text = (out / "audit.md").read_text(encoding="utf-8")
    assert not has_controls(text)
    table = [line for line in text.splitlines() if line.startswith("| ")]
    assert table[2:] and {cells(row) for row in table} == {8}
    assert "<script>" not in text.replace("\\<", "")
    groups = read_csv(out / "groups.csv", dtype="str", keep_default_na=False)
    assert "=col|" in groups.columns
    # the audit reads control characters in a cell as spaces
    read = {"\x1b]0;title\x07": "]0;title", "two\nlines": "two lines"}
    assert set(groups["=col|"]) == {*(read.get(name, name) for name in NAMES), "all"}
    assert set(groups["gender"]) == {"=f|", "all"}
    content = (out / "groups.csv").read_text(encoding="utf-8")
    assert not any(f",{sign}" in content for sign in ("=", "@", "+"))
