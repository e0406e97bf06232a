"""Error rates of what the audit states, on simulated cohorts whose truth is known.

    python benchmarks/error_rates.py [--part PART …] [--cohorts N] [--out FILE]

Prints one line per cell and writes the table to `docs/error-rates.md` when all parts run. Exits 1
where a mark is missed. A further family of cells is a function that takes the number of cohorts and
returns rows; add it to `FAMILIES`.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from os import cpu_count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from cohorts import (
    SIZES,
    Cohorts,
    attainable_level,
    compared,
    of_the_same_people,
    of_two_groups,
    of_two_models,
    plain_permutation_p,
    shares_of_a,
    with_missing,
)
from error_rates_calibration import cells as calibration_cells
from error_rates_choose import cells as choose_cells
from error_rates_extremes import cells as extreme_cells
from error_rates_gate import cells as gate_cells
from error_rates_intersections import CELLS as INTERSECTIONS
from error_rates_intersections import LEVELS, called_different, odds_ratios_shown

from tasks.audit.audit import audit_predictions
from tasks.audit.settings import Settings

PAGE = Path(__file__).parents[1] / "docs" / "error-rates.md"
DRAWS, LEVEL, CONFIDENCE = 1000, 0.05, 0.95
SUBJECTS = ((8, 8), (15, 15), (8, 60))
ICCS, RECALLS = (0.0, 0.3, 0.6), (0.5, 0.9, 0.99)
MISSING = (0.0, 0.1, 0.33, 1.0)
LEAST, MOST, HOSTILE_MOST, COVERED, POWER_LOSS = 0.03, 0.07, 0.08, 0.93, 0.03
# Beyond twice the Monte Carlo error a figure misses its mark.
ERRORS = 2.0
ATTAINED = 0.04  # below, the lower mark is not judged
HOSTILE = frozenset(
    f"dominant, 8 + 60 subjects, ICC {icc}, recall {recall}"
    for icc, recall in product((0.3, 0.6), (0.5, 0.9))
)


@dataclass(frozen=True)
class Row:
    """One figure of one cell.

    `figure` is what was counted, such as `false alarms`, and `value` its share of the cohorts with
    the Monte Carlo `error`. `mark` is the required value, "" for a figure that is only printed;
    `met` is whether it is reached.
    """

    part: str
    cell: str
    figure: str
    value: float
    error: float
    cohorts: int
    mark: str = ""
    met: bool = True

    def line(self) -> str:
        """Return the row as one line of text."""
        verdict = "" if not self.mark else f"{self.mark}: {'met' if self.met else 'MISSED'}"
        return (
            f"{self.part}: {self.cell}: {self.figure} {self.value:.3f} ± {self.error:.3f} {verdict}"
        )


Family = Callable[[int], list[Row]]


def rate(
    part: str,
    cell: str,
    figure: str,
    which: np.ndarray | pd.Series,
    least: float | None = None,
    most: float | None = None,
) -> Row:
    """Return the share of True with its Monte Carlo error, judged against a mark."""
    found = np.asarray(which, dtype=bool)
    value = float(found.mean()) if len(found) else float("nan")
    error = float(np.sqrt(max(value * (1 - value), 1 / max(len(found), 1)) / max(len(found), 1)))
    met = (least is None or value >= least - ERRORS * error) and (
        most is None or value <= most + ERRORS * error
    )
    words = [
        f"≥ {least:.2f}" if least is not None else "",
        f"≤ {most:.2f}" if most is not None else "",
    ]
    return Row(part, cell, figure, value, error, len(found), " and ".join(filter(None, words)), met)


def name(sizes: str, subjects: tuple[int, int] | int, icc: float, recall: object) -> str:
    """Return the name of a cell."""
    people = " + ".join(map(str, subjects)) if isinstance(subjects, tuple) else str(subjects)
    return f"{sizes}, {people} subjects, ICC {icc}, recall {recall}"


def judged(
    part: str, cell: str, cohorts: Cohorts, seed: int, plain: float | None = None
) -> list[Row]:
    """Return false alarms, coverage and contradictions of cohorts without a true difference.

    The lower mark holds only where permuting subjects attains it, see `HEAD`.
    """
    table = compared(cohorts, DRAWS, seed)
    tested = table[table["p_value"].notna()]
    level = attainable_level(cohorts, DRAWS, seed, LEVEL)
    reached = min(level, 1.0 if plain is None else plain)
    most = HOSTILE_MOST if cell in HOSTILE else MOST
    least = LEAST if reached >= ATTAINED else None
    rows = [rate(part, cell, "false alarms", tested["p_value"] < LEVEL, least, most)]
    rows.append(Row(part, cell, "attainable", level, 0.0, len(table)))
    if plain is not None:
        error = float(np.sqrt(plain * (1 - plain) / len(table)))
        rows.append(Row(part, cell, "plain permutation", plain, error, len(table)))
    return rows + agreement(part, cell, tested, cohorts.truth)


def agreement(part: str, cell: str, table: pd.DataFrame, truth: float) -> list[Row]:
    """Return coverage, and how often p and interval, or estimate and interval, contradict."""
    covered = (table["ci_low"] <= truth) & (truth <= table["ci_high"])
    holds = (table["ci_low"] <= 0) & (table["ci_high"] >= 0)
    contradicts = holds != (table["p_value"] >= 1 - CONFIDENCE)
    contradicts |= (table["gap"] < table["ci_low"]) | (table["gap"] > table["ci_high"])
    none = rate(part, cell, "contradictions", contradicts)
    wrong = Row(part, cell, "contradictions", none.value, 0.0, len(table), "0", none.value == 0)
    return [rate(part, cell, "coverage", covered, COVERED), wrong]


def same_as_the_command_path(number: int) -> list[str]:
    """Return where the core, given many cohorts at once, differs from an audit of one table each.

    The audit is `audit_predictions`, which `affectgap audit` calls with the table that it has read.
    """
    params = yaml.safe_load((PAGE.parents[1] / "params.yaml").read_text(encoding="utf-8"))["audit"]
    changed = {"by": ["age_band"], "resamples": 200, "factors": [], "standardize_to": []}
    settings = Settings(**params | changed)
    cohorts = of_two_groups(19, number, "log-normal", (12, 15), 0.3, (0.8, 0.6))
    cohorts = with_missing(cohorts, 20, 0.1, "image")
    table = compared(cohorts, settings.resamples, settings.seed)
    found = []
    for place in range(number):
        audited = audit_predictions(_predictions(cohorts.part(place, place + 1)), settings, None)[
            "gaps"
        ]
        audited = audited[(audited["protocol"] == "held_out") & (audited["emotion"] == "all")].iloc[
            0
        ]
        for figure in ("gap", "p_value", "ci_low", "ci_high", "n_a", "n_unknown_b"):
            if not np.isclose(audited[figure], table[figure][place], equal_nan=True):
                found.append(f"{figure}: {audited[figure]} and {table[figure][place]}")
    return found


def _predictions(cohort: Cohorts) -> pd.DataFrame:
    """Return a cohort as a table of predictions."""
    size = len(cohort.subject)
    return pd.DataFrame(
        {
            "image_id": [f"image {place}" for place in range(size)],
            "dataset": "simulated",
            "subject_id": cohort.subject.astype(str),
            "subject_known": cohort.known,
            "age_band": np.where(cohort.in_a, "child", "adult"),
            "emotion": "happiness",
            "y_pred": np.where(cohort.right_a, "happiness", "anger"),
            "p_happiness": np.where(cohort.right_a, 0.8, 0.2),
            "p_anger": np.where(cohort.right_a, 0.2, 0.8),
            "split": "test",
            "model": "model",
            "seen_in_training": False,
        }
    )


def in_parallel(cells: Sequence[Callable[[], list[Row]]]) -> list[Row]:
    """Run cells in as many processes as there are cores."""
    with ProcessPoolExecutor(cpu_count()) as pool:
        return [row for rows in pool.map(_call, cells) for row in rows]


def _call(cell: Callable[[], list[Row]]) -> list[Row]:
    return cell()


def gap_cell(
    number: int, sizes: str, subjects: tuple[int, int], icc: float, recall: float
) -> list[Row]:
    """Compare two groups without a gap."""
    cohorts = of_two_groups(1, number, sizes, subjects, icc, (recall, recall))
    plain = float((plain_permutation_p(cohorts, DRAWS, 2) < LEVEL).mean())
    return judged("gaps", name(sizes, subjects, icc, recall), cohorts, 3, plain)


def gaps(number: int) -> list[Row]:
    """Two groups of different people, without a gap."""
    grid = product(SIZES, SUBJECTS, ICCS, RECALLS)
    return in_parallel([partial(gap_cell, number, *cell) for cell in grid])


def power_cell(
    number: int, sizes: str, subjects: tuple[int, int], icc: float, recall: tuple[float, float]
) -> list[Row]:
    """Compare two groups with a gap, against a plain permutation of subjects."""
    cohorts = of_two_groups(4, number, sizes, subjects, icc, recall)
    cell = name(sizes, subjects, icc, f"{recall[0]} and {recall[1]}")
    plain = rate("power", cell, "plain permutation", plain_permutation_p(cohorts, DRAWS, 5) < LEVEL)
    table = compared(cohorts, DRAWS, 6)
    least = plain.value - POWER_LOSS
    found = rate("power", cell, "power", table["p_value"] < LEVEL, least)
    return [found, plain, *agreement("power", cell, table, cohorts.truth)]


def power(number: int) -> list[Row]:
    """Two groups of different people, with a gap."""
    grid = [
        *product(SIZES, ((15, 15),), (0.0, 0.3, 0.6), ((0.9, 0.7), (0.75, 0.5))),
        *product(SIZES, ((8, 60),), (0.3,), ((0.9, 0.6), (0.6, 0.9), (0.5, 0.8), (0.99, 0.8))),
        *product(("equal", "log-normal"), ((10, 10),), (0.3,), ((0.99, 0.8),)),
    ]
    return in_parallel([partial(power_cell, number, *cell) for cell in grid])


def same_cell(number: int, sizes: str, subjects: int, icc: float, recall: float) -> list[Row]:
    """Compare two kinds of images of the same people."""
    cohorts = of_the_same_people(7, number, sizes, subjects, icc, recall)
    return judged("same subjects", name(sizes, subjects, icc, recall), cohorts, 8)


def same_subjects(number: int) -> list[Row]:
    """Compare the same people on both sides, without a gap."""
    grid = product(SIZES, (8, 15, 30), (0.0, 0.3, 0.6), (0.5, 0.9))
    return in_parallel([partial(same_cell, number, *cell) for cell in grid])


def paired_cell(number: int, sizes: str, subjects: int, icc: float, recall: float) -> list[Row]:
    """Compare two models that are equally good."""
    cohorts = of_two_models(9, number, sizes, subjects, icc, recall)
    return judged("paired", name(sizes, subjects, icc, recall), cohorts, 10)


def paired(number: int) -> list[Row]:
    """Two models on the same images, without a change."""
    grid = product(SIZES, (8, 15, 30), (0.0, 0.3, 0.6), (0.5, 0.9))
    return in_parallel([partial(paired_cell, number, *cell) for cell in grid])


def missing_cell(number: int, share: float, by: str, sizes: str, recall: float) -> list[Row]:
    """Compare two groups of whom some ids are missing."""
    cohorts = of_two_groups(11, number, sizes, (15, 15), 0.3, (recall, recall))
    cohorts = with_missing(cohorts, 12, share, by)
    cell = f"{share:.0%} missing by {by}, {name(sizes, (15, 15), 0.3, recall)}"
    rows = judged("missing ids", cell, cohorts, 13) if share < 1 else []
    withheld = compared(cohorts, 100, 13)["p_value"].isna()
    share_of = shares_of_a(cohorts, 14)
    covered = (share_of["ci_low"] <= recall) & (recall <= share_of["ci_high"])
    return [
        *rows,
        rate("missing ids", cell, "withheld", withheld, least=1.0 if share == 1 else None),
        rate("missing ids", cell, "coverage of a recall", covered, COVERED),
    ]


def missing(number: int) -> list[Row]:
    """Two groups without a gap, where ids are missing."""
    grid = product(MISSING, ("image", "subject"), ("equal", "log-normal"), (0.5, 0.9))
    return in_parallel([partial(missing_cell, number, *cell) for cell in grid])


def recall_cell(number: int, sizes: str, subjects: int, icc: float, recall: float) -> list[Row]:
    """Return the coverage of a recall's interval."""
    cohorts = of_two_groups(15, number, sizes, (subjects, 2), icc, (recall, recall))
    table = shares_of_a(cohorts, 16)
    cell = name(sizes, subjects, icc, recall)
    rows = []
    for figure, low, high in (
        ("coverage", "ci_low", "ci_high"),
        ("coverage per subject", "per_subject_ci_low", "per_subject_ci_high"),
    ):
        covered = (table[low] <= recall) & (recall <= table[high])
        rows.append(rate("recalls", cell, figure, covered, COVERED))
    return rows


def recall_intervals(number: int) -> list[Row]:
    """Intervals of single recalls, pooled over images and averaged over subjects."""
    grid = product(SIZES, (8, 15, 60), ICCS, RECALLS)
    return [row for cell in grid for row in recall_cell(number, *cell)]


def equivalence_cell(
    number: int, sizes: str, subjects: tuple[int, int], recall: tuple[float, float]
) -> list[Row]:
    """Test for equivalence within 5 points: with a true gap of 5 points, and with none."""
    cohorts = of_two_groups(17, number, sizes, subjects, 0.1, recall)
    table = compared(cohorts, DRAWS, 18, margin=0.05)
    cell = name(sizes, subjects, 0.1, f"{recall[0]} and {recall[1]}")
    true = abs(recall[0] - recall[1]) < 0.05 - 1e-9
    figure = "shown to be smaller" if true else "wrongly shown to be smaller"
    return [rate("equivalence", cell, figure, table["equivalent"], most=None if true else MOST)]


def equivalence(number: int) -> list[Row]:
    """Rates at which a difference is found equivalent."""
    grid = product(SIZES[:2], ((60, 60), (150, 150)), ((0.9, 0.85), (0.95, 0.9), (0.9, 0.9)))
    return in_parallel([partial(equivalence_cell, max(number // 4, 50), *cell) for cell in grid])


def intersection_cell(number: int, cell: dict[str, Any]) -> list[Row]:
    """Compare four groups with the rest, without any difference and with one."""
    words = f"{cell['sizes']}, {cell['subjects']}, ICC {cell['icc']}, recall {cell['recall']}"
    false = called_different(number, 14, **cell)
    found = called_different(max(number // 4, 50), 15, gap=0.2, **cell)
    return [
        rate("intersections", words, "false alarms", false, most=MOST),
        rate("intersections", words, "power, 20 points", found),
    ]


def intersections(number: int) -> list[Row]:
    """Compare groups of two columns at once, as one family."""
    return in_parallel([partial(intersection_cell, number, cell) for cell in INTERSECTIONS])


def level_cell(number: int, level: tuple[int, int, str, float, float]) -> list[Row]:
    """Fit the logistic model where the odds ratio of a level of few subjects is 1."""
    few, many, sizes, icc, recall = level
    significant = odds_ratios_shown(number, 16, *level)
    words = name(sizes, (few, many), icc, recall)
    return [rate("odds-ratios", words, "false alarms", significant, most=MOST)]


def odds_ratios(number: int) -> list[Row]:
    """Fit the logistic model with few subjects on one level."""
    return in_parallel([partial(level_cell, number, level) for level in LEVELS])


def calibration(number: int) -> list[Row]:
    """Calibration errors of groups, and between groups."""
    return _shown_and_covered("calibration", calibration_cells(max(number // 4, 50)))


def extremes(number: int) -> list[Row]:
    """Ranges between groups, and the effects of a drift report."""
    return _shown_and_covered("extremes", extreme_cells(max(number // 4, 50)))


def _shown_and_covered(part: str, found: Iterable[dict[str, Any]]) -> list[Row]:
    """Return how often figures were shown not to be 0, and how often intervals held the truth."""
    rows = []
    for cell in found:
        name, tables = cell["name"], int(cell["tables"])
        rows.append(Row(part, name, "shown", cell["rate"], cell["monte_carlo_error"], tables))
        covered = np.arange(tables) < round(cell["coverage"] * tables)
        rows.append(rate(part, name, "coverage", covered, COVERED))
    return rows


def choices(number: int) -> list[Row]:
    """Rates at which `choose` replaces the base model."""
    rows = []
    for found in choose_cells(max(number // 2, 50)):
        cell, figure = found["name"].rsplit(": ", 1)
        worse = "-2 points" in cell and "10 children" in cell and figure == "base replaced"
        most = 0.1 if worse else None
        value, error = found["rate"], found["error"]
        met = most is None or value <= most + ERRORS * error
        mark = "" if most is None else f"≤ {most:.2f}"
        rows.append(Row("choose", cell, figure, value, error, found["trials"], mark, met))
    return rows


def gate(number: int) -> list[Row]:
    """Refusal rates of the gate, for equally good versions and for losses in a group."""
    rows = []
    for found in gate_cells(max(number // 5, 40)).to_dict("records"):
        cell = f"{found['subjects']} people, {found['sizes']}: {found['name']}"
        judged_here = found["subjects"] == 100 and found["passes"] == 1
        error, value = found["error"], found["refused"]
        mark, met = "", True
        if judged_here and found["loss"] == 0:
            mark, met = "≤ 0.10", value <= 0.1 + ERRORS * error
        elif judged_here and found["loss"] == 0.08:
            mark, met = "≥ 0.80", value >= 0.8 - ERRORS * error
        rows.append(Row("gate", cell, "refused", value, error, found["cohorts"], mark, met))
        rows.append(Row("gate", cell, "waits for a person", found["held"], error, found["cohorts"]))
    return rows


# A family of cells by name. Add a family here; nothing else has to change.
FAMILIES: list[tuple[str, Family]] = [
    ("gaps", gaps),
    ("power", power),
    ("same-subjects", same_subjects),
    ("paired", paired),
    ("missing", missing),
    ("recalls", recall_intervals),
    ("equivalence", equivalence),
    ("intersections", intersections),
    ("odds-ratios", odds_ratios),
    ("calibration", calibration),
    ("extremes", extremes),
    ("choose", choices),
    ("gate", gate),
]


def page(rows: Iterable[Row], command: str) -> str:
    """Return the page of the documentation: how to read it, then one table per part."""
    rows = list(rows)
    text = [HEAD.format(command=command)]
    for part in dict.fromkeys(row.part for row in rows):
        part_rows = [row for row in rows if row.part == part]
        figures = list(dict.fromkeys(row.figure for row in part_rows))
        missed = sum(not row.met for row in part_rows)
        text.append(
            f"\n## {part.capitalize()}\n\n{len(part_rows)} figures, {missed} marks missed.\n"
        )
        text.append(f"| cell | cohorts | {' | '.join(figures)} |\n|---|---|{'---|' * len(figures)}")
        for cell in dict.fromkeys(row.cell for row in part_rows):
            by_figure = {row.figure: row for row in part_rows if row.cell == cell}
            cells = [_shown(by_figure.get(figure)) for figure in figures]
            cohorts = max(row.cohorts for row in by_figure.values())
            text.append(f"| {cell} | {cohorts} | {' | '.join(cells)} |")
    return "\n".join(text) + "\n"


def _shown(row: Row | None) -> str:
    if row is None:
        return ""
    if row.figure in ("contradictions", "attainable"):
        return f"{row.value:.3f}"
    return f"{row.value:.3f} ± {row.error:.3f}" + ("" if row.met else " **missed**")


HEAD = f"""# Error rates

Written by `{{command}}`. Each figure is the share of simulated cohorts, ± its Monte Carlo error.

- **False alarms**: p below .05 where there is no difference. Mark: {LEAST} to {MOST}, at most
  {HOSTILE_MOST} in the four most hostile cells (one subject has half of the images of each side, 8
  against 60 subjects, ICC .3 or .6, recall .5 or .9).
- **Attainable**: how often a test at .05 rejects if subjects are put on sides at random. With few
  subjects and few errors most allocations tie, and no test that permutes subjects can reject more
  often. **Plain permutation**: false alarms where the statistic is the gap alone. The lower mark is
  judged only where both are at least {ATTAINED:.2f}; elsewhere the test errs towards silence. That
  includes cells with one dominant subject whose images are not alike: the test has to take into
  account that they might be.
- **Coverage**: the 95 % interval holds the true difference. Mark: at least {COVERED}.
- **Contradictions**: p and interval disagree about 0, or the estimate lies outside. Mark: none.
- **Power**: p below .05 where there is a difference. Mark: no more than {POWER_LOSS} less than
  with a plain permutation of subjects.
- **Withheld**: more than a third of a side's images are of unknown subjects, so that nothing is
  tested; the other figures are of the cohorts that were.

A mark is missed where a figure is beyond it by more than twice its Monte Carlo error. p-values are
those of single comparisons with all subjects that there are; the audit tests only sides with
`audit.min_subjects` effective subjects, which excludes the dominant cells, and corrects for the
number of comparisons. Subjects have 8 images (equal), log-normal numbers with a standard deviation
of 1 on the log scale, or 4 with one who has as many as all others together (dominant).
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts that were asked for; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    names = [family_name for family_name, _ in FAMILIES]
    parser.add_argument("--part", action="append", choices=names, help="default: all")
    parser.add_argument("--cohorts", type=int, default=1000, help="per cell")
    parser.add_argument("--out", type=Path, help=f"default: {PAGE.name} where all parts run")
    asked = parser.parse_args(arguments)
    differ = same_as_the_command_path(3)
    print(*differ or ["the core says what audit_predictions says"], sep="\n", flush=True)
    rows: list[Row] = []
    for family_name, family in FAMILIES:
        if asked.part and family_name not in asked.part:
            continue
        found = family(asked.cohorts)
        print(*(row.line() for row in found), sep="\n", flush=True)
        rows += found
    out = asked.out or (None if asked.part else PAGE)
    if out is not None:
        command = f"python benchmarks/error_rates.py --cohorts {asked.cohorts}"
        out.write_text(page(rows, command), encoding="utf-8")
    missed = [row for row in rows if not row.met]
    print(f"{len(rows)} figures, {len(missed)} marks missed")
    print(*(row.line() for row in missed), sep="\n")
    return 1 if missed or differ else 0


if __name__ == "__main__":
    sys.exit(main())
