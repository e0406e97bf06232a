"""The gate's decision about a version, stored as JSON and read back byte for byte."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from tasks.core.errors import DataError

DECISION = "decision.json"
ANSWERS = "answers.csv"  # beside it: the challenger's predictions
PASS, FAIL, NOT_JUDGED = "pass", "fail", "not_judged"  # outcomes of a rule
NOT_SHOWN = "not_shown"  # neither harm nor non-inferiority is significant
HELD = "held"  # harm is significant in this look, but not corrected for all looks
LISTED = "listed"  # reported with its interval, without a verdict
ALL = "all"
OVERALL, GROUP = "overall recall", "group recall"
CALIBRATION, ROBUSTNESS, UNSEEN = "calibration", "robustness", "people not trained on"
BEST = "against the best ever"  # per group, against the best of all former champions
HIGHER_IS_BETTER: tuple[str, ...] = (OVERALL, GROUP, BEST)
FROZEN, NEW = "frozen", "new"  # parts: images that the champion was judged on, and later ones
COLUMNS: tuple[str, ...] = (
    "rule",  # one of those above
    "part",  # frozen or new
    "group",  # "all", "child × female", "child", or a kind of perturbation
    "n",
    "subjects",
    "effective",  # effective number of subjects (Kish)
    "champion",  # in BEST: the former champion
    "challenger",
    "change",  # challenger minus champion
    "ci_low",
    "ci_high",
    "method",  # of the interval
    "own_low",  # interval of the challenger's figure, for its floor
    "own_high",
    "margin",  # of the first model: the floor
    "outcome",
    "note",
)
_NUMBERS = ("effective", "champion", "challenger", "change", "ci_low", "ci_high")
_NUMBERS += ("own_low", "own_high", "margin")
_DIGITS = 6
_ID_DIGITS = 16


@dataclass(frozen=True)
class Contender:
    """A version of the model: number in the registry, digest of the weights, and run."""

    version: int
    digest: str
    run_id: str


@dataclass(frozen=True)
class Decision:
    """The gate's decision.

    Attributes
    ----------
    reasons
        One sentence per failed rule, with the group and the figure; empty if the version passes.
    table
        One row per rule and group, with `COLUMNS`.
    champion
        The current model; None for the first model ever, which is held to the floors.
    counts
        Numbers of test images that were compared, or not, by reason.
    test_set
        Digest of the test images, their subjects and labels.
    notice
        Credit line that the data's license demands; "" for none.
    params
        The keys of `promote` that rules depend on.
    waits
        Why a passing version needs approval by a person, one sentence each.
    errors
        Error rates on this test set, from `tasks.gate.error_rates`; empty for the first model. None
        for a decision of an earlier release, which has neither it nor `waits`.
    answers
        `image_id, answer` of each compared image ("": no face was found), for later comparisons;
        None for a decision that was read from its file.
    """

    outcome: Literal["pass", "refuse"]
    reasons: tuple[str, ...]
    table: pd.DataFrame
    challenger: Contender
    champion: Contender | None
    counts: Mapping[str, int]
    test_set: str
    notice: str
    params: Mapping[str, Any]
    waits: tuple[str, ...] = ()
    errors: Mapping[str, Any] | None = None
    answers: pd.DataFrame | None = None

    @property
    def passed(self) -> bool:
        """Return whether the version passed all rules."""
        return self.outcome == "pass"

    @property
    def decision_id(self) -> str:
        """Return a digest of the content."""
        return hashlib.sha256(_json(self._content()).encode()).hexdigest()[:_ID_DIGITS]

    @property
    def worst_group(self) -> str:
        """Return the challenger's worst group on the frozen images; "" if none is judged."""
        group, _ = self._worst()
        return group

    @property
    def worst_recall(self) -> float:
        """Return the recall of that group; NaN if none is judged."""
        _, recall = self._worst()
        return recall

    @property
    def needs_a_person(self) -> bool:
        """Return whether a version that passed needs approval by a person."""
        unknown = self.errors is None and not self.worst_group
        return self.passed and (bool(self.waits) or unknown)

    def to_json(self) -> str:
        """Return the decision as JSON; the same decision gives the same bytes."""
        return _json({"decision_id": self.decision_id, **self._content()})

    def _worst(self) -> tuple[str, float]:
        table = self.table
        rows = table[(table["rule"] == GROUP) & (table["part"] == FROZEN)]
        rows = rows[(rows["outcome"] != NOT_JUDGED) & (rows["group"] != ALL)]
        if rows.empty:
            return "", math.nan
        row = rows.loc[rows["challenger"].astype(float).idxmin()]
        return str(row["group"]), float(row["challenger"])

    def _content(self) -> dict[str, Any]:
        new = {} if self.errors is None else {"waits": list(self.waits), "errors": self.errors}
        columns = [name for name in COLUMNS if name in self.table.columns]
        return {
            "outcome": self.outcome,
            "reasons": list(self.reasons),
            "challenger": asdict(self.challenger),
            "champion": None if self.champion is None else asdict(self.champion),
            "rules": [_plain(row) for row in self.table[columns].to_dict("records")],
            "counts": dict(self.counts),
            "test_set": self.test_set,
            "notice": self.notice,
            "params": dict(self.params),
            **new,
        }


def read_decision(path: Path) -> Decision | None:
    """Read a decision; None if there is no file.

    Raises
    ------
    DataError
        If the file is damaged or was changed.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        champion = content["champion"]
        written = content["rules"][0] if content["rules"] else COLUMNS
        table = pd.DataFrame(content["rules"], columns=[one for one in COLUMNS if one in written])
        numbers = [name for name in _NUMBERS if name in table.columns]
        table[numbers] = table[numbers].astype(float)
        decision = Decision(
            outcome=content["outcome"],
            reasons=tuple(content["reasons"]),
            table=table,
            challenger=Contender(**content["challenger"]),
            champion=None if champion is None else Contender(**champion),
            counts=content["counts"],
            test_set=content["test_set"],
            notice=content["notice"],
            params=content["params"],
            waits=tuple(content.get("waits", ())),
            errors=content.get("errors"),
        )
        unchanged = decision.decision_id == content["decision_id"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        fault = " ".join(str(error).split())[:120]
        raise DataError(f"{path}: is no decision of the gate ({fault})") from None
    if not unchanged:
        raise DataError(f"{path}: was changed after it was written (its decision_id differs)")
    return decision


def rounded(table: pd.DataFrame) -> pd.DataFrame:
    """Round figures to the digits in the file, so that a decision survives a round trip."""
    figures = table[list(_NUMBERS)].astype(float).round(_DIGITS) + 0.0  # no -0.0
    return table.assign(**{name: figures[name] for name in _NUMBERS})


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    figures = {name: _number(row[name]) for name in _NUMBERS if name in row}
    return {**row, "n": int(row["n"]), "subjects": int(row["subjects"]), **figures}


def _number(value: Any) -> float | None:
    return None if pd.isna(value) else round(float(value), _DIGITS) + 0.0
