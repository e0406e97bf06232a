"""`affectgap promote`: judge the challenger, write down the decision, put it into use or not.

The order is the same for a pass and for a person: decide; write the decision and the line in
promotions.csv; commit and tag; move the alias last. Killed between any two, the same call goes on.
"""

from typing import Any

import pandas as pd

from flows import git_versions
from flows.policy import Params as RetrainParams
from flows.registry import withdrawn_batches
from flows.unfinished import assert_own_store, finish_promotion
from flows.worst_group import worst_tags
from tasks.core.errors import UserError
from tasks.core.files import write_text
from tasks.core.ledger import Ledger
from tasks.core.locks import alone
from tasks.core.params import load_section
from tasks.core.paths import Paths
from tasks.core.tables import write_csv
from tasks.core.text import printable
from tasks.gate.decision import ANSWERS, DECISION, Decision, read_decision
from tasks.gate.settings import Params
from tasks.register.records import (
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
_LONGEST_TAG = 4000  # characters; MLflow's limit of a tag is 5,000
_BUSY = "another command is at work here; wait for it, or look with `affectgap status`"


def judge(paths: Paths, challenger: Any = None) -> Decision:
    """Judge the challenger against the model in use.

    Parameters
    ----------
    paths
        The project's paths.
    challenger
        The version to judge; None: the one that was registered last, by any clone.

    Returns
    -------
    Decision
        Nothing is written. Where the challenger is the model in use, the decision that let it
        through.

    Raises
    ------
    UserError
        One line: there is no challenger, or something that it is judged by is missing.
    """
    from flows.gate import decide_about
    from tasks.register import registry

    challenger, champion = challenger or registry.challenger(paths), registry.champion(paths)
    if challenger is None:
        raise UserError("there is no challenger to judge; `affectgap retrain` trains one")
    if champion is None:
        assert_own_store(paths)
    if champion is not None and champion.number == challenger.number:
        decision = read_decision(paths.decision(champion.number) / DECISION)
        if decision is None:
            raise UserError(f"version {champion.number} is both challenger and in use: no rival")
        return decision
    return decide_about(paths, challenger, champion)


def record(paths: Paths, decision: Decision, by: str = "", why: str = "") -> str:
    """Write a decision down: JSON and HTML, tags on the version, one line in promotions.csv.

    Parameters
    ----------
    paths
        The project's paths.
    decision
        What `judge` returned; written twice, it stands there once.
    by, why
        Who asked for it, where that was a person.

    Returns
    -------
    str
        `promoted` (it comes into use now), `waiting` (for an approval) or `refused`.
    """
    from tasks.gate.page import page
    from tasks.register import registry

    asked = load_section(paths.params, "promote", Params).require_approval
    waits = asked or decision.needs_a_person
    action = REFUSED if not decision.passed else WAITING if waits else PROMOTED
    folder = paths.decision(decision.challenger.version)
    if decision.answers is not None:
        write_csv(decision.answers, folder / ANSWERS)
    # By its id it stays when the version is judged again; under the plain name is the latest.
    for name in (f"{decision.decision_id}.html", PAGE):
        write_text(folder / name, page(decision))
    for name in (f"{decision.decision_id}.json", DECISION):
        write_text(folder / name, decision.to_json())
    why_not = decision.reasons if action != WAITING else why_waiting(decision)
    reasons = " ".join(why_not) or "no rule shows harm beyond what its margin allows"
    tags = {
        "decision": action,
        "decision_id": decision.decision_id,
        "reasons": reasons[:_LONGEST_TAG],
        **worst_tags(decision),
        "compared_with": str(decision.champion.version) if decision.champion else "the floors",
        "compared_with_run": decision.champion.run_id if decision.champion else "",
    }
    registry.set_tags(paths, decision.challenger.version, tags)
    said = " ".join(filter(None, [*why_not, why]))
    append_record(paths, _line(paths, decision, action, by, said))
    return action


def why_waiting(decision: Decision) -> list[str]:
    """Return why a version that passed does not come into use by itself, one sentence each."""
    if decision.waits:
        return list(decision.waits)
    return ["Params ask for an approval (promote.require_approval)."]


def promote_command(paths: Paths, approve: int | None, by: str, why: str) -> list[str]:
    """Do what `affectgap promote` does; returns the lines to show.

    Parameters
    ----------
    paths
        The project's paths.
    approve
        A waiting version to let through; None judges the challenger.
    by, why
        Who decides and for what reason; an approval needs both.

    Raises
    ------
    UserError
        One line, where nothing can be judged or the version must not be approved.
    """
    retrain, run = paths.at("work/retrain.lock"), paths.at("work/run.lock")
    with alone(retrain, _BUSY), alone(run, _BUSY):
        finished = finish_promotion(paths)
        if approve is None:
            return [*finished, *_judge(paths, by, why)]
        return [*finished, *_approve(paths, approve, by, why)]


def _judge(paths: Paths, by: str, why: str) -> list[str]:
    """Judge the challenger and act on it."""
    from tasks.register import registry

    challenger = registry.challenger(paths)
    if challenger is not None and _was_rolled_back(paths, challenger):
        raise UserError(
            f"version {challenger.number} was taken out of use by a rollback; to put it back, "
            + _how(challenger.number)
        )
    if challenger is not None:
        _assert_data_stayed(paths, challenger)
    decision = judge(paths, challenger)
    number = decision.challenger.version
    champion = registry.champion(paths)
    if champion and champion.number == number:
        return [f"version {number} is in use already; nothing to judge"]
    action = record(paths, decision, by, why)
    lines = [f"version {number}: {action}", *(f"  {reason}" for reason in decision.reasons)]
    lines += [f"  {decision.notice}"] if decision.reasons and decision.notice else []
    lines.append(f"  all rules: {paths.decision(number) / PAGE}")
    if action == WAITING:
        lines += [f"  waits for a person: {reason}" for reason in why_waiting(decision)]
        lines.append(f"  to let it through: {_how(number)}")
    return [*lines, *_into_use(paths, decision, action, why)]


def _approve(paths: Paths, number: int, by: str, why: str) -> list[str]:
    """Let a waiting version through."""
    from tasks.register import registry

    if not by.strip() or not why.strip():
        raise UserError("an approval is kept with a name and a reason: give --by NAME and --why …")
    version = registry.find_version(paths, number)
    champion = registry.champion(paths)
    if champion and champion.number == number:
        return [f"version {number} is in use already"]
    _assert_data_stayed(paths, version)
    decision = read_decision(paths.decision(number) / DECISION)
    if decision is None or decision.challenger.digest != version.digest:
        raise UserError(f"version {number} was not judged; run `affectgap promote` first")
    if not decision.passed:
        said = f" ({decision.notice})" if decision.notice else ""
        raise UserError(f"version {number} did not pass the gate: {decision.reasons[0]}{said}")
    then, now = decision.champion, champion.number if champion else None
    if (then.version if then else None) != now:
        raise UserError(
            f"version {number} was judged against {_named(then.version if then else None)}, but "
            f"{_named(now)} is in use now; train and judge again: affectgap retrain --now"
        )
    append_record(paths, _line(paths, decision, APPROVED, by, why))
    registry.set_tags(paths, number, {"decision": APPROVED, "approved_by": by, "approved_why": why})
    return [f"version {number}: approved by {by}", *_into_use(paths, decision, APPROVED, why)]


def _into_use(paths: Paths, decision: Decision, action: str, why: str) -> list[str]:
    """Commit, and where it comes into use: tag, and move the alias last."""
    from tasks.register import registry

    number, digest = decision.challenger.version, decision.challenger.digest
    policy = load_section(paths.params, "retrain", RetrainParams)
    said = [printable(line) for line in (*decision.reasons, why)]
    body = "\n".join([*said, f"Weights {digest}"]).strip()
    message = f"affectgap: version {number} {action}\n\n{body}\n"
    rival = decision.champion.version if decision.champion else None
    if action in (PROMOTED, APPROVED):
        registry.assert_rival(paths, number, rival)
    lines = git_versions.keep(paths, policy, message)
    if action not in (PROMOTED, APPROVED):
        return lines
    lines += git_versions.tag_version(paths, policy, number, message)
    registry.promote(paths, number, rival, line_of(paths, decision, action))
    Ledger(paths.ledger).mark_promoted(digest, number)
    return [*lines, f"version {number} is in use now; back with `affectgap rollback`"]


def _line(paths: Paths, decision: Decision, action: str, by: str, why: str) -> dict[str, object]:
    """Make the line of promotions.csv."""
    into_use = action in (PROMOTED, APPROVED)
    policy = load_section(paths.params, "retrain", RetrainParams)
    return {
        "action": action,
        "version": decision.challenger.version,
        "digest": decision.challenger.digest,
        "previous": decision.champion.version if decision.champion else "",
        "decision_id": _id_of_line(read_records(paths), decision, action),
        "worst_group": decision.worst_group,
        "worst_recall": _share(decision.worst_recall),
        "by": by,
        "why": why,
        "tag": git_versions.tag_name(decision.challenger.version)
        if into_use and policy.commit
        else "",
    }


def line_of(paths: Paths, decision: Decision, action: str) -> str:
    """Return the decision_id of the line in promotions.csv that `record` wrote."""
    return _id_of_line(read_records(paths), decision, action)


def _id_of_line(records: pd.DataFrame, decision: Decision, action: str) -> str:
    """Return the decision's id; let through once more after it was left, it is another line."""
    name, version = decision.decision_id, decision.challenger
    own = records[(records["version"] == str(version.version)) & (records["action"] == action)]
    if action in (PROMOTED, APPROVED) and (
        taken_out(records, version.version, version.digest) is not None
    ):
        return f"{name}.{len(own) + 2}"
    ids = [known for known in own["decision_id"] if known.split(".")[0] == name]
    return ids[-1] if ids else name


def _was_rolled_back(paths: Paths, version: Any) -> bool:
    return rolled_back(read_records(paths), version.number, version.digest) is not None


def _assert_data_stayed(paths: Paths, version: Any) -> None:
    """Raise where a version was trained with what is withdrawn now."""
    if gone := withdrawn_batches(paths, version):
        raise UserError(
            f"version {version.number} was trained with what is withdrawn now "
            f"({', '.join(gone)}); `affectgap retrain --now` trains without it"
        )


def _how(number: int) -> str:
    return f"affectgap promote --approve {number} --by NAME --why REASON"


def _named(number: int | None) -> str:
    return "the floors (no model was in use)" if number is None else f"version {number}"


def _share(value: float) -> str:
    return "" if value != value else f"{value:.4f}"
