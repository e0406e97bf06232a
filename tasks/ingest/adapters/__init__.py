"""Adapters, one per data set, which read labels from file names and side files.

An adapter is a function from a folder and its files (paths below the folder) to a `Reading`. It
never decodes images.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tasks.ingest.adapters import (
    affectnet,
    cafe,
    ck_plus,
    drawn,
    fairface,
    fer2013,
    liris_cse,
    london,
    nimh_chefs,
    posed_portraits,
    raf_db,
)
from tasks.ingest.adapters import folder as folder_module
from tasks.ingest.label import AdapterResult, Fault, Label, base_name

Adapter = Callable[[Path, Sequence[str]], AdapterResult]


def _by_name(read_name: Callable[[str], Label | Fault]) -> Adapter:
    """Return the adapter of a data set whose file names hold all labels."""

    def read(folder: Path, files: Sequence[str]) -> AdapterResult:
        return AdapterResult({path: read_name(base_name(path)) for path in files})

    return read


ADAPTERS: Mapping[str, Adapter] = {
    "affectnet": affectnet.read_affectnet,
    "cafe": cafe.read_cafe,
    "ck-plus": ck_plus.read_ck_plus,
    "ddcf": _by_name(posed_portraits.read_ddcf_name),
    "defss": _by_name(posed_portraits.read_defss_name),
    "drawn": _by_name(drawn.read_name),
    "faces": _by_name(posed_portraits.read_faces_name),
    "fairface": fairface.read_fairface,
    "fer2013": fer2013.read_fer2013,
    "folder": folder_module.read_folders,
    "jaffe": _by_name(posed_portraits.read_jaffe_name),
    "kdef": _by_name(posed_portraits.read_kdef_name),
    "liris-cse": liris_cse.read_liris_cse,
    "london": london.read_london,
    "nimh-chefs": nimh_chefs.read_nimh_chefs,
    "raf-db": raf_db.read_raf_db,
    "rafd": _by_name(posed_portraits.read_rafd_name),
    "six-emotions": folder_module.read_six_emotions,
    "utkface": _by_name(fairface.read_utkface_name),
}

# Data sets that can only be counted (`affectgap datasets count`).
WITHOUT_EMOTIONS: frozenset[str] = frozenset(["fairface", "utkface"])
