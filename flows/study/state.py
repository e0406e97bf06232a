"""State of a study: what the plan asks for, and which results are still valid.

DVC tells which results match the current code, images and run files, and the plan
(`tasks.study.plan`) sees only those. A second study therefore trains nothing, and a killed one
continues with the missing run.
"""

from flows.pipeline.dvc_graph import changed_stages
from flows.study.dvc_stages import (
    FILE,
    has_text,
    is_written,
    read_known_runs,
    run_stage,
    run_text,
    target_of,
    write_stages,
)
from tasks.core.params import load_yaml, parse_section
from tasks.core.paths import STUDY_OUTS, Paths
from tasks.study.candidates import Run, base_recipe
from tasks.study.plan import Progress, progress, winning_runs
from tasks.study.results import RESULT, Result, read_result
from tasks.study.settings import Params


class StudyState:
    """A study of the project in `paths`, as params.yaml defines it.

    Raises ParamsError if section `study` is missing or invalid, or `train` lacks what the plan
    reads.
    """

    def __init__(self, paths: Paths) -> None:
        content = load_yaml(paths.params)
        self.paths = paths
        self.settings = parse_section("study", content, Params, paths.params)
        self.train = base_recipe(content)
        if not _can_be_planned(self.train):
            from tasks.train.trial import check_recipe  # imports torch, which is slow

            check_recipe(self.train, paths)
        self.looked = False
        self._changed: set[str] = set()  # targets of DVC
        self._results: dict[str, Result] = {}
        self._accepted: set[str] = set()  # keys of runs that this command brought up to date,
        self._trained: set[str] = set()  # and of those that it trained

    def look(self) -> None:
        """Query DVC which results are valid; the split table must be up to date."""
        self.looked = True
        known = read_known_runs(self.paths)
        if not known:
            return
        self._changed = set(changed_stages(self.paths.root, None, FILE))
        for key in known:
            folder = self.paths.study_result(key)
            holds = target_of(run_stage(key)) not in self._changed
            if holds and (folder / RESULT).is_file():
                self._results[key] = read_result(folder)

    def accept(self, key: str, trained: bool) -> None:
        """Add the result of a run that DVC has just brought up to date."""
        self._results[key] = read_result(self.paths.study_result(key))
        self._accepted.add(key)
        if trained:
            self._trained.add(key)

    def progress(self) -> Progress:
        """Run the plan as far as valid results allow."""
        return progress(self.settings, self.train, self._results, self._holds)

    def write(self, progress: Progress) -> None:
        """Write the stages of all runs so far."""
        for run in progress.wanted:  # an old result must not count for the new run file
            self._results.pop(run.key, None)
        write_stages(self.paths, progress.runs, self._winners(progress))

    def is_up_to_date(self, progress: Progress) -> bool:
        """Return whether the study is finished, including its tables and report."""
        return (
            not progress.wanted
            and not self._changed & {target_of(name) for name in STUDY_OUTS}
            and is_written(self.paths, progress.runs, self._winners(progress))
        )

    def _winners(self, progress: Progress) -> list[str] | None:
        if progress.wanted:
            return None
        return [run.key for run in winning_runs(self.settings, progress.decisions)]

    def _holds(self, run: Run) -> bool:
        """Return whether a result is this run's, by its file and its predecessor."""
        if run.key in self._accepted:
            return True
        path = self.paths.study_run(run.key)
        return run.before not in self._trained and has_text(path, run_text(run))


def _can_be_planned(train: object) -> bool:
    """Return whether section `train` has the keys that the plan reads."""
    if not isinstance(train, dict):
        return False
    parts = [train.get("loss"), train.get("optimizer")]
    has_names = all(isinstance(part, dict) and "name" in part for part in parts)
    return has_names and isinstance(train.get("learning_rate"), float | int) and "init" in train
