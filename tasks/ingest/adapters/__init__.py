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
from tasks.ingest.label import Reading

Adapter = Callable[[Path, Sequence[str]], Reading]

ADAPTERS: Mapping[str, Adapter] = {
    "affectnet": affectnet.read_affectnet,
    "cafe": cafe.read_cafe,
    "ck-plus": ck_plus.read_ck_plus,
    "ddcf": ddcf.read_ddcf,
    "defss": defss.read_defss,
    "drawn": drawn.read_names,
    "faces": faces.read_faces,
    "fairface": fairface.read_fairface,
    "fer2013": fer2013.read_fer2013,
    "folder": folder.read_folders,
    "jaffe": jaffe.read_jaffe,
    "kdef": kdef.read_kdef,
    "liris-cse": liris_cse.read_liris_cse,
    "london": london.read_london,
    "nimh-chefs": nimh_chefs.read_nimh_chefs,
    "raf-db": raf_db.read_raf_db,
    "rafd": rafd.read_rafd,
    "six-emotions": six_emotions.read_six_emotions,
    "utkface": utkface.read_utkface,
}

# These can be counted (`affectgap datasets count`), not ingested.
WITHOUT_EMOTIONS: frozenset[str] = frozenset(["fairface", "utkface"])
