"""Which module carries out each stage, and which section of params.yaml it gets."""

from collections.abc import Mapping

from tasks.core.paths import STAGE_OUTS, STUDY_OUTS, STUDY_RUN

# Most stages live in the room of the same name.
_IN_ROOMS = {name: f"tasks.{name}.stage" for name in {full.split("@")[0] for full in STAGE_OUTS}}
MODULES: Mapping[str, str] = {
    **_IN_ROOMS,
    **{name: f"tasks.train.{name}" for name in ("finetune", "interpolate", "choose", STUDY_RUN)},
    "study_choose": "tasks.study.stage",
    "study_test": "tasks.study.test",
    "study_report": "tasks.report.study_stage",
}
TRAINING = ("train", "finetune", STUDY_RUN)  # what several devices do together


def section_of(stage: str) -> str:
    """Return the section of params.yaml that a stage's `Params` are read from.

    Parameters
    ----------
    stage
        The stage's name without its item.
    """
    return "study" if stage in STUDY_OUTS else stage


def is_stage(name: str, items: list[str]) -> bool:
    """Tell whether there is such a stage; any key will do for a run of a study."""
    if name == STUDY_RUN:
        return len(items) == 1
    return "@".join([name, *items]) in {*STAGE_OUTS, *STUDY_OUTS}
