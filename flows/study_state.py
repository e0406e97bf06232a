"""How far a study is: what the plan asks for, and which results still hold.

DVC says which results belong to the code, the pictures and the run files that are there; the plan
(`tasks.study.plan`) sees those alone. So a second study finds everything and trains nothing, and
one that was killed goes on with the run that is missing.
"""

from flows.dvc_graph import changed_stages
from flows.study_stages import (
    FILE,
    is_written,
    known_runs,
    run_stage,
    run_text,
    says,
    target_of,
    write_stages,
)
from tasks.core.params import load_yaml, parse_section
from tasks.core.paths import STUDY_OUTS, Paths
from tasks.study.arms import Run
from tasks.study.plan import Progress, progress, winning_runs
from tasks.study.results import RESULT, Result, read_result
from tasks.study.settings import Params


class StudyState:
    """A study of the project in `paths`, as its params.yaml asks for it.

    Raises
    ------
    ParamsError
        Where section `study` is missing or has a fault, or `train` lacks what the plan reads.
    """

    def __init__(self, paths: Paths) -> None:
        content = load_yaml(paths.params)
        self.paths = paths
        self.settings = parse_section("study", content, Params, paths.params)
        self.train = content.get("train") or {}
        if not _can_be_planned(self.train):
            from tasks.train.study_check import check_recipe  # with torch, slow to import

            check_recipe(self.train, paths)
        self.looked = False
        self._changed: set[str] = set()  # targets of DVC
        self._results: dict[str, Result] = {}
        self._accepted: set[str] = set()  # keys that this command brought up to date,
        self._trained: set[str] = set()  # and those of them that were trained for it

    def look(self) -> None:
        """Ask DVC which results hold; the split table must be up to date."""
        self.looked = True
        known = known_runs(self.paths)
        if not known:
            return
        self._changed = set(changed_stages(self.paths.root, None, FILE))
        for key in known:
            folder = self.paths.study_result(key)
            holds = target_of(run_stage(key)) not in self._changed
            if holds and (folder / RESULT).is_file():
                self._results[key] = read_result(folder)

    def accept(self, key: str, trained: bool) -> None:
        """Take the result of a run that DVC has just brought up to date."""
        self._results[key] = read_result(self.paths.study_result(key))
        self._accepted.add(key)
        if trained:
            self._trained.add(key)

    def progress(self) -> Progress:
        """Play the plan as far as results hold."""
        return progress(self.settings, self.train, self._results, self._holds)

    def write(self, found: Progress) -> None:
        """Write the stages of all runs so far."""
        for run in found.wanted:  # an old result is not to be taken for what its new file asks for
            self._results.pop(run.key, None)
        write_stages(self.paths, found.runs, self._winners(found))

    def is_up_to_date(self, found: Progress) -> bool:
        """Tell whether the study is finished, its tables and its report too."""
        return (
            not found.wanted
            and not self._changed & {target_of(name) for name in STUDY_OUTS}
            and is_written(self.paths, found.runs, self._winners(found))
        )

    def _winners(self, found: Progress) -> list[str] | None:
        if found.wanted:
            return None
        return [run.key for run in winning_runs(self.settings, found.decisions)]

    def _holds(self, run: Run) -> bool:
        """Whether a result is this run's, by what its file says and what it goes on from."""
        if run.key in self._accepted:
            return True
        path = self.paths.study_run(run.key)
        return run.before not in self._trained and says(path, run_text(run))


def _can_be_planned(train: object) -> bool:
    """Whether a section `train` has the keys that the plan reads; the rest is checked later."""
    if not isinstance(train, dict):
        return False
    parts = [train.get("loss"), train.get("optimiser")]
    named = all(isinstance(part, dict) and "name" in part for part in parts)
    return named and isinstance(train.get("learning_rate"), float | int) and "start" in train
