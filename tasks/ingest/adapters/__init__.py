"""Adapters: how the files of a data set are read; one file each, chosen by params.

An adapter is a function from a folder and its files (paths below the folder) to a `Reading`; it
looks at names and side files, never at pixels.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tasks.ingest.adapters import drawn, folder, london
from tasks.ingest.label import Reading

Adapter = Callable[[Path, Sequence[str]], Reading]

ADAPTERS: Mapping[str, Adapter] = {
    "drawn": drawn.read_names,
    "folder": folder.read_folders,
    "london": london.read_london,
}
