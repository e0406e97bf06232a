"""`affectgap intake`: pictures into data/raw, then tracked by DVC; `affectgap datasets count`."""

from pathlib import Path

from flows.dvc_graph import run_dvc
from tasks.core.errors import AffectGapError
from tasks.core.params import load_section
from tasks.core.paths import Paths
from tasks.core.tables import write_csv
from tasks.ingest.catalogue import DATASETS
from tasks.ingest.demographics import Demographics, count_demographics
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
        What was done, in one line, and what else to do where params.yaml does not name it.
    """
    params = load_section(paths.params, "ingest", Params)
    summary = intake(source, dataset, paths, params.max_pixels)
    # Again after a crash between the two steps: `dvc add` of a tracked folder changes nothing.
    *lines, code = run_dvc(paths.root, "--wait-for-lock", "add", "--quiet", f"data/raw/{dataset}")
    if code != "exit 0":
        said = " ".join(lines[-3:]).removeprefix("ERROR: ")
        raise AffectGapError(f"data/raw/{dataset}: copied, but DVC could not track it: {said}")
    return f"{summary}{_not_read_yet(dataset, params)}"


def _not_read_yet(dataset: str, params: Params) -> str:
    """Return what to do where params.yaml does not name the data set, else ""."""
    if dataset in params.datasets:
        return ""
    known = DATASETS.get(dataset)
    adapter = known.adapter if known else "folder"
    remedy = f"`affectgap use PRESET`, or add it to ingest.datasets with the adapter {adapter}"
    if known and known.preset:
        remedy = f"`affectgap use {known.preset}`"
    return f"; params.yaml does not read it yet: {remedy}"


def count(paths: Paths, folder: Path, adapter: str, out: Path | None) -> Demographics:
    """Count a folder's people by the age bands of params.yaml, and write the table where asked.

    Parameters
    ----------
    paths
        The project's paths.
    folder
        A data set's folder, anywhere; it is read, never changed.
    adapter
        How its files are named.
    out
        The CSV to write, or None.
    """
    params = load_section(paths.params, "ingest", Params)
    counted = count_demographics(folder, adapter, params.age_bands)
    if out is not None:
        write_csv(counted.table, out)
    return counted
