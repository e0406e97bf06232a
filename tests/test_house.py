"""The rules of the layout, checked by reading the project itself."""

import ast
import re
from collections import Counter
from pathlib import Path

import grimp
import networkx
import pytest
import yaml

from flows.presets import preset_names, preset_text
from tasks.core.params import DEVICE, load_yaml
from tasks.core.paths import STAGE_OUTS, STUDY_OUTS, STUDY_RUN
from tasks.core.stages import MODULES, section_of

ROOT = Path(__file__).resolve().parent.parent
HOMES = {  # library: modules (or packages) that may import it
    "prefect": ("flows",),
    "great_expectations": ("tasks.check",),
    "distributed": ("tasks.core.parallel.dask_executor",),
    "dlib": ("tasks.crop",),
    "lime": ("tasks.explain",),
    "h5py": ("tasks.train.pretrained.hdf5_arrays",),
    "openpyxl": ("tasks.core.spreadsheets.encodings",),
    "onnx": ("tasks.core.models.onnx_session",),
    "onnxruntime": ("tasks.core.models.onnx_session",),
    "timm": ("tasks.core.models.timm_model",),
    "mlflow": ("tasks.core.tracking.mlflow_runs", "tasks.register", "flows.ui"),
    "pytorch_optimizer": ("tasks.core.training.optimizers",),
}
COMMAND_LINES = ("tasks.__main__", "tasks.core.parallel.limited_process", "flows.cli")
OTHER_SECTIONS = {  # of params.yaml, beside those of stages: where their classes are
    "intake": "flows.intake.settings",
    "drift": "tasks.drift.settings",
    "retrain": "flows.retraining.trigger_policy",
    "promote": "tasks.gate.settings",
}
DVC_YAML = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))


def stages() -> dict[str, tuple[str, dict]]:
    """Every stage of dvc.yaml with its items written out: name -> (item, entry)."""
    found = {}
    for name, entry in DVC_YAML["stages"].items():
        for item in entry.get("matrix", {}).get("model", [""]):
            found[f"{name}@{item}" if item else name] = (item, entry)
    return found


def filled(values: list[str], item: str) -> list[str]:
    return [value.replace("${item.model}", item) for value in values]


def module_of(stage: str) -> str:
    return MODULES[stage.split("@")[0]]


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("tasks", "flows", include_external_packages=True, cache_dir=None)


def sources() -> list[Path]:
    return sorted([*ROOT.glob("tasks/**/*.py"), *ROOT.glob("flows/**/*.py")])


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("library", HOMES)
def test_each_library_has_one_home(graph, library):
    importers = {m for m in graph.find_modules_that_directly_import(library)}
    homeless = {m for m in importers if not m.startswith(HOMES[library])}
    assert not homeless, f"{library} is imported outside {HOMES[library]}: {homeless}"
    assert importers, f"{library} is a dependency that nothing imports"


def test_stages_import_core_only(graph):
    packages = {m.split(".")[1] for m in graph.modules if m.startswith("tasks.")} - {"__main__"}
    for package in packages:
        inside = {
            m for m in graph.modules if m == f"tasks.{package}" or m.startswith(f"tasks.{package}.")
        }
        imported = set().union(*(graph.find_modules_directly_imported_by(m) for m in inside))
        own = {m for m in imported if m.startswith(("tasks.", "flows."))}
        allowed = ("tasks.core", f"tasks.{package}")
        assert not {m for m in own if not m.startswith(allowed)}, package


def test_no_modules_import_each_other_in_a_circle(graph):
    imports = networkx.DiGraph(
        (module, imported)
        for module in graph.modules
        if module.startswith(("tasks", "flows"))
        for imported in graph.find_modules_directly_imported_by(module)
    )
    assert [c for c in networkx.strongly_connected_components(imports) if len(c) > 1] == []


def test_no_folder_holds_more_than_16_modules():
    modules = Counter(path.parent for path in sources() if path.name != "__init__.py")
    assert not {str(folder): n for folder, n in modules.items() if n > 16}


@pytest.mark.parametrize("stage", stages())
def test_every_module_that_a_stage_imports_is_a_dep(graph, stage):
    item, entry = stages()[stage]
    deps = [Path(dep) for dep in filled(entry["deps"], item)]
    start = module_of(stage)
    needed = {m for m in graph.find_upstream_modules(start) if m.startswith("tasks.")} | {start}
    files = {Path(*m.split(".")).with_suffix(".py") for m in needed}
    files = {f for f in files if (ROOT / f).is_file()}  # a package's __init__ holds a docstring
    missing = {str(f) for f in files if not any(f == d or d in f.parents for d in deps)}
    assert not missing, f"{stage} imports modules that dvc.yaml does not name: {sorted(missing)}"
    code = {d for d in deps if d.parts[0] in ("tasks", "flows")}
    idle = {str(d) for d in code if not any(f == d or d in f.parents for f in files)}
    assert not idle, f"{stage} names modules that it does not import: {sorted(idle)}"


def test_packages_hold_no_code_but_what_switches_telemetry_off():
    found = {}
    for path in sources():
        if path.name == "__init__.py" and path.parent.parent in (ROOT, ROOT / "tasks"):
            body = ast.parse(path.read_text(encoding="utf-8")).body
            assert isinstance(body[0], ast.Expr), path
            found[dotted(path)] = [ast.unparse(node).partition("(")[0] for node in body[1:]]
    assert found.pop("tasks") == ["import os", "os.environ.update"]
    assert found.pop("flows") == ["import tasks as _telemetry_off"]
    assert not any(found.values()), found


def test_outs_of_dvc_are_those_of_paths():
    named = {}
    for stage, (item, entry) in stages().items():
        named[stage] = set(filled(entry["outs"], item))
    assert named == {stage: set(outs) for stage, outs in STAGE_OUTS.items()}


def test_no_stage_reads_what_none_writes():
    written = {out for outs in STAGE_OUTS.values() for out in outs} | {"data/raw", "given"}
    for stage, (item, entry) in stages().items():
        data = {d for d in filled(entry["deps"], item) if not d.startswith(("tasks", "flows"))}
        assert data <= written, f"{stage} reads {data - written}"


@pytest.mark.parametrize("preset", ["default", *preset_names(ROOT)])
def test_every_preset_fits_every_stage(preset, tmp_path):
    import importlib

    from tasks.core.params import parse_section

    path = tmp_path / "params.yaml"
    path.write_text(preset_text(ROOT, ROOT / "presets" / f"{preset}.yaml"), encoding="utf-8")
    content = load_yaml(path)
    assert content.pop(DEVICE) == "auto"
    names = {stage.split("@")[0] for stage in (*STAGE_OUTS, *STUDY_OUTS)}
    homes = {section_of(name): module_of(name) for name in names} | OTHER_SECTIONS
    assert set(content) == set(homes)
    for section, module in homes.items():
        values = content | {DEVICE: "cpu"}
        parsed = parse_section(section, values, importlib.import_module(module).Params, path)
        assert getattr(parsed, DEVICE, "cpu") == "cpu"


def test_params_have_no_defaults_in_code():
    from tasks.core.params import Section

    def subclasses(kind):
        for sub in kind.__subclasses__():
            yield sub
            yield from subclasses(sub)

    import importlib

    for stage in (*STAGE_OUTS, STUDY_RUN, *STUDY_OUTS):
        importlib.import_module(module_of(stage))
    for module in OTHER_SECTIONS.values():
        importlib.import_module(module)
    for section in set(subclasses(Section)):
        if section.__module__.startswith(("tasks.", "flows.")):
            optional = [k for k, field in section.model_fields.items() if not field.is_required()]
            assert not optional, f"{section.__module__}.{section.__name__}: {optional}"


def test_every_key_of_the_default_preset_is_explained_or_its_parent_is():
    parents, silent = {}, []
    for line in (ROOT / "presets" / "default.yaml").read_text(encoding="utf-8").splitlines():
        key = re.match(r"( *)([a-z_]+):", line)
        if not key:
            continue
        depth = len(key[1])
        parents = {level: explained for level, explained in parents.items() if level < depth}
        explained = "#" in line or any(above for level, above in parents.items() if level > 0)
        has_children = not line.split(":", 1)[1].strip()
        if not (explained or depth == 0 or has_children):
            silent.append(line.strip())
        parents[depth] = explained
    assert not silent


def test_params_are_the_drawn_preset():
    drawn = preset_text(ROOT, ROOT / "presets" / "drawn.yaml")
    assert drawn == (ROOT / "params.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sources(), ids=dotted)
def test_module_opens_with_its_purpose_and_does_nothing_on_import(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{path} does not say what it is for"
    for node in tree.body[1:]:
        loose = isinstance(node, ast.Expr | ast.For | ast.While | ast.With)
        main = isinstance(node, ast.If) and "__name__" in ast.dump(node.test)
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        # typer's add_typer, and the environment against telemetry
        allowed = dotted(path) in ("flows.cli", "tasks") and isinstance(node, ast.Expr)
        assert allowed or not loose, f"{path}:{node.lineno} does work when imported"
        assert not isinstance(node, ast.If) or main or typing_only, f"{path}:{node.lineno}"


@pytest.mark.parametrize("path", sources(), ids=dotted)
def test_no_pickle_and_no_command_line_outside_its_homes(path):
    text = path.read_text(encoding="utf-8")
    for word in ("import pickle", "torch.load(", "allow_pickle=True", "yaml.load(", "extractall("):
        # `safe_yaml.load` is the project's own, under limits
        assert not re.search(rf"\b{re.escape(word)}", text), f"{path}: {word}"
    if dotted(path) not in COMMAND_LINES:
        assert "sys.argv" not in text and "argparse" not in text, path


def test_words_that_promise_too_much_are_not_used():
    texts = [*sources(), ROOT / "README.md", *ROOT.glob("docs/**/*.md")]
    texts += list(ROOT.glob("tasks/**/*.html")) + list(ROOT.glob("tasks/**/*.j2"))
    for path in texts:
        if path.name in ("fairness_language.md", "CONTRIBUTING.md"):
            continue  # they say which words not to use
        found = re.findall(r"\b(?:de-?biased|unbiased|bias-free)\b", path.read_text(), re.I)
        assert not found, f"{path}: {found}"
