"""`affectgap intake`: pictures into data/raw, then tracked by DVC."""

from pathlib import Path

from flows.dvc_graph import run_dvc
from tasks.core.errors import AffectGapError
from tasks.core.params import load_section
from tasks.core.paths import Paths
from tasks.ingest.intake import intake
from tasks.ingest.stage import Params


def take_in(paths: Paths, source: Path, dataset: str) -> str:
    """Check and copy a folder of pictures, then have DVC track it.

    Parameters
    ----------
    paths
        The project's paths.
    source
        The folder that was given; it is read, never changed.
    dataset
        Its name from now on: the folder below data/raw.

    Returns
    -------
    str
        What was done, in one line.
    """
    params = load_section(paths.params, "ingest", Params)
    summary = intake(source, dataset, paths, params.max_pixels)
    # Again after a crash between the two steps: `dvc add` of a tracked folder changes nothing.
    *lines, code = run_dvc(paths.root, "--wait-for-lock", "add", "--quiet", f"data/raw/{dataset}")
    if code != "exit 0":
        said = " ".join(lines[-3:]).removeprefix("ERROR: ")
        raise AffectGapError(f"data/raw/{dataset}: copied, but DVC could not track it: {said}")
    return str(summary)
