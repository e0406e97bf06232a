"""A withdrawal says what it leaves, and where."""

from inbox_world import files_of, paths, send, take  # noqa: F401

from flows.intake.intake import remaining_copies, withdraw


def test_a_withdrawal_lists_what_it_does_not_remove(paths):  # noqa: F811
    send(paths, "site-3", files_of(1))
    take(paths)
    withdraw(paths, "site-3", "mixed up", "A. Weber")
    head, first, *others = remaining_copies(paths, "site-3")
    assert "erases nothing" in head
    assert first.strip().startswith("data/quarantine/site-3/")
    assert (paths.quarantine / "site-3" / "labels.csv").is_file()
    for place in (".dvc/cache", "git", "data/ledger.db", "mlruns/", "seen.csv", "work/"):
        assert any(place in line for line in others)
