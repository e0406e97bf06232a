"""How the report was made: commit, params, digests of the inputs, library versions, runs."""

from collections.abc import Mapping
from typing import Any

from tasks.core.digests import input_digests
from tasks.core.paths import MODELS, Paths
from tasks.core.provenance import commit_of, has_changes, versions
from tasks.report.inputs import Inputs
from tasks.report.words import model_word


def provenance(inputs: Inputs, paths: Paths) -> dict[str, Any]:
    """Return where the report comes from.

    Keys: `commit` ("" in a folder without commits), `changed` (files differ from it), `versions`,
    `digests` (of what the report read, as DVC knows them), `runs` (tracking runs by stage),
    `params` (the file as it is), `models`.
    """
    return {
        "commit": commit_of(paths.root),
        "changed": has_changes(paths.root),
        "versions": versions(),
        "digests": input_digests(paths, "report") if paths.at("dvc.yaml").is_file() else {},
        "runs": dict(inputs.runs),
        "params": inputs.params_text,
        "models": [model_facts(name, inputs.specs[name]) for name in MODELS],
    }


def model_facts(name: str, spec: Mapping[str, Any]) -> dict[str, str]:
    """Say what a model is: architecture, input, labels, source and version."""
    if not spec:
        return {"name": model_word(name), "text": "no description (model.json) was found"}
    side = spec.get("input_size_px", "?")
    return {
        "name": model_word(name),
        "text": f"{spec.get('architecture', '?')}, {side} × {side} px {spec.get('colour', '')}, "
        f"labels {', '.join(spec.get('labels', ()))}; {spec.get('source', 'source not told')}; "
        f"version {spec.get('version', '?')}",
    }
