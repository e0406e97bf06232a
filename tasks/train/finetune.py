"""Stage `finetune`: the base model, trained on with all its layers on one group.

Reads models/base, data/split.parquet and the crops; writes models/finetuned, which keeps the base
model's labels, input and architecture. Pictures whose emotion the model does not know are left
out and counted. The base model's own weights compete as epoch 0.
"""

import pandas as pd

from tasks.core.models.checkpoint import load_model, load_seen
from tasks.core.paths import Paths
from tasks.core.result import StageResult
from tasks.core.tables import read_table
from tasks.train.outcome import fit_and_keep
from tasks.train.pictures import choose_rows
from tasks.train.recipe import Recipe


class Params(Recipe):
    """Section `finetune` of params.yaml."""


def run(params: Params, paths: Paths) -> StageResult:
    """Fine-tune models/base on a group into models/finetuned."""
    module, base = load_model(paths.model("base"))
    seen: pd.DataFrame = load_seen(paths.model("base"))
    rows = choose_rows(read_table(paths.split), params.group, "finetune.group", base.labels)
    source = f"fine-tuned here from version {base.version} ({base.source})"
    spec = base.model_copy(update={"source": source})
    return fit_and_keep("finetune", "finetuned", module, spec, rows, seen, params, paths)
