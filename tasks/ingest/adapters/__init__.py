"""Adapters: how the files of a data set are read; one file each, chosen by params.

An adapter is a function from a folder and its files (paths below the folder) to a `Reading`; it
looks at names and side files, never at pixels.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tasks.ingest.adapters import (
    affectnet,
    cafe,
    ck_plus,
    ddcf,
    defss,
    drawn,
    faces,
    fairface,
    fer2013,
    folder,
    jaffe,
    kdef,
    liris_cse,
    london,
    nimh_chefs,
    raf_db,
    rafd,
    six_emotions,
    utkface,
)
from tasks.ingest.label import Fault, Label, Reading, base_name

Adapter = Callable[[Path, Sequence[str]], Reading]


def _by_name(read_name: Callable[[str], Label | Fault]) -> Adapter:
    """Make the adapter of a set whose file names say all; its folder is not looked at."""

    def read(folder: Path, files: Sequence[str]) -> Reading:
        return Reading({path: read_name(base_name(path)) for path in files})

    return read


ADAPTERS: Mapping[str, Adapter] = {
    "affectnet": affectnet.read_affectnet,
    "cafe": cafe.read_cafe,
    "ck-plus": ck_plus.read_ck_plus,
    "ddcf": _by_name(ddcf.read_name),
    "defss": _by_name(defss.read_name),
    "drawn": _by_name(drawn.read_name),
    "faces": _by_name(faces.read_name),
    "fairface": fairface.read_fairface,
    "fer2013": fer2013.read_fer2013,
    "folder": folder.read_folders,
    "jaffe": _by_name(jaffe.read_name),
    "kdef": _by_name(kdef.read_name),
    "liris-cse": liris_cse.read_liris_cse,
    "london": london.read_london,
    "nimh-chefs": nimh_chefs.read_nimh_chefs,
    "raf-db": raf_db.read_raf_db,
    "rafd": _by_name(rafd.read_name),
    "six-emotions": six_emotions.read_six_emotions,
    "utkface": _by_name(utkface.read_name),
}

# These can be counted (`affectgap datasets count`), not ingested.
WITHOUT_EMOTIONS: frozenset[str] = frozenset(["fairface", "utkface"])
