"""`affectgap promote`: evaluates the challenger, records the decision, and promotes it or not.

A pass and a person follow the same order: decide; write the decision and the line in
promotions.csv; commit and tag; move the alias last. After a kill in between, the same call
completes the rest.
"""

from typing import Any

import pandas as pd

from flows.ledger.ledger import Ledger
from flows.registry import git_commits
from flows.registry.model_table import approval_command, decision_tags, withdrawn_batches
from flows.registry.recovery import assert_store_has_champion, commit_version, complete_promotion
from flows.retraining.trigger_policy import Params as RetrainParams
from tasks.core.errors import UserError
from tasks.core.files import alone, write_text
from tasks.core.params import load_section
from tasks.core.paths import Paths
from tasks.core.tables import write_csv
from tasks.core.text import printable
from tasks.gate.decision import ANSWERS, DECISION, Decision, read_decision
from tasks.gate.settings import Params
from tasks.register.promotion_log import (
    APPROVED,
    PROMOTED,
    REFUSED,
    WAITING,
    append_record,
    read_records,
    rolled_back,
    taken_out,
)

PAGE = "decision.html"
_MAX_TAG = 4000  # characters; MLflow's limit is 5,000
_BUSY = "another command is at work here; wait for it, or look with `affectgap status`"


def judge_challenger(paths: Paths, challenger: Any = None) -> Decision:
    """Return the decision about the challenger; nothing is written.

    Without a `challenger`, the last registered version is judged, which may be another clone's. If
    it is the model in use already, the decision that promoted it is returned. Raises UserError if
    there is no challenger, or something needed for a judgment is missing.
    """
    from flows.registry.gate_inputs import evaluate_challenger
    from tasks.register import registry

    challenger, champion = challenger or registry.challenger(paths), registry.champion(paths)
    if challenger is None:
        raise UserError("there is no challenger to judge; `affectgap retrain` trains one")
    if champion is None:
        assert_store_has_champion(paths)
    if champion is not None and champion.number == challenger.number:
        decision = read_decision(paths.decision(champion.number) / DECISION)
        if decision is None:
            raise UserError(f"version {champion.number} is both challenger and in use: no rival")
        return decision
    return evaluate_challenger(paths, challenger, champion)


def record_decision(paths: Paths, decision: Decision, by: str = "", why: str = "") -> str:
    """Record a decision: JSON and HTML, tags on the version, and one line in promotions.csv.

    Recording a decision twice leaves one entry. `by` and `why` are given if a person asked for it.
    Returns `promoted` (it comes into use now), `waiting` (for an approval) or `refused`.
    """
    from tasks.gate.page import page
    from tasks.register import registry

    params = load_section(paths.params, "promote", Params)
    waits = params.require_approval or decision.needs_a_person
    action = REFUSED if not decision.passed else WAITING if waits else PROMOTED
    folder = paths.decision(decision.challenger.version)
    if decision.answers is not None:
        write_csv(decision.answers, folder / ANSWERS)
    # The copy under its id survives a later judgment; the plain name holds the latest.
    for name in (f"{decision.decision_id}.html", PAGE):
        write_text(folder / name, page(decision))
    for name in (f"{decision.decision_id}.json", DECISION):
        write_text(folder / name, decision.to_json())
    details = decision.reasons if action != WAITING else why_waiting(decision)
    reasons = " ".join(details) or "no rule shows harm beyond what its margin allows"
    tags = {
        "decision": action,
        "decision_id": decision.decision_id,
        "reasons": reasons[:_MAX_TAG],
        **decision_tags(decision),
        "compared_with": str(decision.champion.version) if decision.champion else "the floors",
        "compared_with_run": decision.champion.run_id if decision.champion else "",
    }
    registry.set_tags(paths, decision.challenger.version, tags)
    reasons = " ".join(filter(None, [*details, why]))
    append_record(paths, _line(paths, decision, action, by, reasons))
    return action


def why_waiting(decision: Decision) -> list[str]:
    """Return why a version that passed is not promoted automatically, one sentence each."""
    if decision.waits:
        return list(decision.waits)
    return ["Params ask for an approval (promote.require_approval)."]


def promote_command(paths: Paths, approve: int | None, by: str, why: str) -> list[str]:
    """Run `affectgap promote`, and return the lines to print.

    `approve` is a waiting version to promote; None judges the challenger. An approval needs `by`
    and `why`. Raises UserError if nothing can be judged or the version must not be approved.
    """
    retrain, run = paths.at("work/retrain.lock"), paths.at("work/run.lock")
    with alone(retrain, _BUSY), alone(run, _BUSY):
        finished = complete_promotion(paths)
        if approve is None:
            return [*finished, *_judge(paths, by, why)]
        return [*finished, *_approve(paths, approve, by, why)]


def _judge(paths: Paths, by: str, why: str) -> list[str]:
    from tasks.register import registry

    challenger = registry.challenger(paths)
    if challenger is not None and _was_rolled_back(paths, challenger):
        raise UserError(
            f"version {challenger.number} was taken out of use by a rollback; to put it back, "
            + approval_command(challenger.number)
        )
    if challenger is not None:
        _assert_data_stayed(paths, challenger)
    decision = judge_challenger(paths, challenger)
    number = decision.challenger.version
    champion = registry.champion(paths)
    if champion and champion.number == number:
        return [f"version {number} is in use already; nothing to judge"]
    action = record_decision(paths, decision, by, why)
    lines = [f"version {number}: {action}", *(f"  {reason}" for reason in decision.reasons)]
    lines += [f"  {decision.notice}"] if decision.reasons and decision.notice else []
    lines.append(f"  all rules: {paths.decision(number) / PAGE}")
    if action == WAITING:
        lines += [f"  waits for a person: {reason}" for reason in why_waiting(decision)]
        lines.append(f"  to promote it: {approval_command(number)}")
    return [*lines, *_activate(paths, decision, action, why)]


def _approve(paths: Paths, number: int, by: str, why: str) -> list[str]:
    from tasks.register import registry

    if not by.strip() or not why.strip():
        raise UserError(
            "an approval is recorded with a name and a reason: give --by NAME and --why …"
        )
    version = registry.find_version(paths, number)
    champion = registry.champion(paths)
    if champion and champion.number == number:
        return [f"version {number} is in use already"]
    _assert_data_stayed(paths, version)
    decision = read_decision(paths.decision(number) / DECISION)
    if decision is None or decision.challenger.digest != version.digest:
        raise UserError(f"version {number} was not judged; run `affectgap promote` first")
    if not decision.passed:
        notice = f" ({decision.notice})" if decision.notice else ""
        raise UserError(f"version {number} did not pass the gate: {decision.reasons[0]}{notice}")
    then = decision.champion.version if decision.champion else None
    now = champion.number if champion else None
    if then != now:
        raise UserError(
            f"version {number} was judged against {_rival_name(then)}, but {_rival_name(now)} is "
            "in use now; train and judge again: affectgap retrain --now"
        )
    append_record(paths, _line(paths, decision, APPROVED, by, why))
    registry.set_tags(paths, number, {"decision": APPROVED, "approved_by": by, "approved_why": why})
    lines = _activate(paths, decision, APPROVED, why)
    return [f"version {number}: approved by {by}", *lines]


def _activate(paths: Paths, decision: Decision, action: str, why: str) -> list[str]:
    """Commit; for a promotion also tag, and move the alias last."""
    from tasks.register import registry

    number, digest = decision.challenger.version, decision.challenger.digest
    rival = decision.champion.version if decision.champion else None
    in_use = action in (PROMOTED, APPROVED)
    if in_use:
        registry.assert_rival(paths, number, rival)
    reasons = "\n".join(printable(line) for line in (*decision.reasons, why))
    lines = commit_version(paths, number, digest, action, reasons, in_use)
    if not in_use:
        return lines
    registry.promote(paths, number, rival, record_id(paths, decision, action))
    Ledger(paths.ledger).mark_promoted(digest, number)
    return [*lines, f"version {number} is in use now; undo with `affectgap rollback`"]


def _line(paths: Paths, decision: Decision, action: str, by: str, why: str) -> dict[str, object]:
    policy = load_section(paths.params, "retrain", RetrainParams)
    has_tag = action in (PROMOTED, APPROVED) and policy.commit
    return {
        "action": action,
        "version": decision.challenger.version,
        "digest": decision.challenger.digest,
        "previous": decision.champion.version if decision.champion else "",
        "decision_id": _id_of_line(read_records(paths), decision, action),
        "worst_group": decision.worst_group,
        "worst_recall": _format_recall(decision.worst_recall),
        "by": by,
        "why": why,
        "tag": git_commits.tag_name(decision.challenger.version) if has_tag else "",
    }


def record_id(paths: Paths, decision: Decision, action: str) -> str:
    """Return the decision_id of the line in promotions.csv that `record` wrote."""
    return _id_of_line(read_records(paths), decision, action)


def _id_of_line(records: pd.DataFrame, decision: Decision, action: str) -> str:
    """Return the decision's id; a repeated promotion after a rollback gets a new line."""
    name, number = decision.decision_id, decision.challenger.version
    same_version = records["version"] == str(number)
    same_action = records[same_version & (records["action"] == action)]
    demotion = taken_out(records, number, decision.challenger.digest)
    if action in (PROMOTED, APPROVED) and demotion is not None:
        return f"{name}.{len(same_action) + 2}"
    ids = [known for known in same_action["decision_id"] if known.split(".")[0] == name]
    return ids[-1] if ids else name


def _was_rolled_back(paths: Paths, version: Any) -> bool:
    return rolled_back(read_records(paths), version.number, version.digest) is not None


def _assert_data_stayed(paths: Paths, version: Any) -> None:
    """Raise if a version was trained with batches that are withdrawn now."""
    if gone := withdrawn_batches(paths, version):
        raise UserError(
            f"version {version.number} was trained with what is withdrawn now "
            f"({', '.join(gone)}); `affectgap retrain --now` trains without it"
        )


def _rival_name(number: int | None) -> str:
    return "the floors (no model was in use)" if number is None else f"version {number}"


def _format_recall(value: float) -> str:
    return "" if value != value else f"{value:.4f}"
