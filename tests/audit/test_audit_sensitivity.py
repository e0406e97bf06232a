"""How many wrong labels or wrongly recorded subjects undo a gap."""

import numpy as np
import pandas as pd
import pytest

from tasks.audit.measures.gaps import gaps_table
from tasks.audit.measures.sensitivity import sensitivity_table


def cohort(wrong_children=7, subjects=12, images=8):
    """Return children who are read wrong in `wrong_children` of 12 images of each, adults right."""
    rows = []
    for band, wrong in (("child", wrong_children), ("adult", 1)):
        for number in range(subjects):
            for image in range(images):
                right = (image * 5 + number) % 12 >= wrong
                rows.append(
                    {
                        "subject_id": f"{band}{number}",
                        "age_band": band,
                        "emotion": ("anger", "fear")[image % 2],
                        "y_pred": ("anger", "fear")[(image + (not right)) % 2],
                    }
                )
    frame = pd.DataFrame(rows)
    frame["correct"] = frame["emotion"] == frame["y_pred"]
    return frame.assign(
        image_id=np.arange(len(frame)),
        model="m",
        protocol="held_out",
        dataset="x",
        subject_known=True,
    )


@pytest.fixture
def undone(settings_of):
    def go(frame):
        settings = settings_of(by=["age_band"], min_subjects=8, resamples=400)
        gaps = gaps_table(frame, settings)
        return gaps, sensitivity_table(frame, gaps, settings), settings

    return go


def test_a_gap_is_undone_by_the_stated_number_of_labels_and_not_by_one_fewer(undone):
    frame = cohort()
    _, table, settings = undone(frame)
    number = int(table["undone_by_labels"][table["emotion"] == "all"].iloc[0])
    assert number >= 2
    # By hand: wrong images of children turn right, those of the best-read children last.
    wrong = frame.index[(frame["age_band"] == "child") & ~frame["correct"]][::-1]
    for corrected, significant in ((number, False), (number - 1, True)):
        mended = frame.copy()
        mended.loc[wrong[:corrected], "correct"] = True
        row = gaps_table(mended, settings).iloc[0]
        assert ((row["ci_low"] > 0) | (row["ci_high"] < 0)) == significant


def test_a_larger_gap_withstands_more_errors(undone):
    few, many = (undone(cohort(wrong))[1].iloc[0] for wrong in (6, 10))
    assert few["undone_by_labels"] < many["undone_by_labels"]
    assert few["undone_by_subjects"] < many["undone_by_subjects"]


def test_a_gap_that_is_not_shown_has_no_row(undone):
    gaps, table, _ = undone(cohort(wrong_children=1))
    assert len(gaps) and table.empty


def test_every_shown_gap_has_a_row_with_its_own_figures(undone):
    gaps, table, _ = undone(cohort(10))
    significant = gaps[gaps["enough_n"] & (gaps["p_adjusted"] < 0.05)]
    assert len(table) == len(significant) > 1
    assert (table["gap"].to_numpy() == significant["gap"].to_numpy()).all()
    assert table["undone_by_labels"].dropna().le(table["tried_labels"].iloc[0]).all()
