"""The `affectgap` command. Heavy libraries are imported by the commands that need them."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from flows.environment import prepare_environment
from flows.operations import operations_app
from flows.starter import clean_arguments, mark_as_command
from flows.stores import told_as_away, where_runs_are
from tasks.core.errors import AffectGapError, UserError
from tasks.core.no_room import FULL, is_full
from tasks.core.paths import EVALUATED, Paths, find_root
from tasks.core.private import restrict_umask
from tasks.core.provenance import repository_fault
from tasks.core.terminal import (
    Console,
    console,
    flush_output,
    json_line,
    prepare_output,
    print_error,
)

app = typer.Typer(
    help="Train emotion recognisers; measure by age and gender where they read pictures less often "
    "as labelled; fine-tune them on children.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
datasets_app = typer.Typer()
app.add_typer(datasets_app, name="datasets")
app.add_typer(operations_app)

Quiet = Annotated[bool, typer.Option("--quiet", help="Plain lines without bars, for logs.")]


def main() -> None:
    """Run the command line: 0 on success, 2 on a user's mistake, 1 on a failure."""
    restrict_umask()
    mark_as_command()
    prepare_output()
    sys.argv[1:] = clean_arguments(sys.argv[1:])
    try:
        app()
    except AffectGapError as error:
        print_error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print_error("interrupted; run the same command again to go on")
        sys.exit(130)
    except Exception as error:
        if is_full(error):
            print_error(FULL)
            sys.exit(1)
        if told := told_as_away(error):
            print_error(told)
            sys.exit(1)
        if not isinstance(error, OSError) or error.filename is None:  # a defect, to be seen whole
            raise
        print_error(AffectGapError(f"{error.filename}: {error.strerror}"))
        sys.exit(2)
    finally:
        flush_output()


@app.command()
def run(
    target: Annotated[str | None, typer.Argument(help="A stage of dvc.yaml; default: all.")] = None,
    quiet: Quiet = False,
) -> None:
    """Bring everything up to date and say where the report is.

    Example: affectgap run
    """
    paths = _project()
    _need_git(paths.root)
    from flows.dvc_graph import changed_stages, stage_graph
    from flows.mending import mend
    from tasks.core.params import load_yaml

    load_yaml(paths.params)  # a torn file is said in our words, before DVC stumbles over it
    out = console()
    for line in mend(paths):
        out.say(f"mended: {line}")
    if target is not None:
        stage_graph(paths.root, target)  # says it in one line where there is no such stage
    if changed := changed_stages(paths.root, target):
        from flows.reproduce import reproduce
        from tasks.core import tracking  # with MLflow, which takes longer than DVC's look

        tracking.close_dead_runs(paths)
        reproduce(paths, target, changed, out, quiet)
    else:
        out.say("Everything is up to date (DVC); nothing to do.")
    if target in (None, "report"):  # after a part of the way, the tables are of an earlier run
        _print_headline(paths, out)


@app.command()
def study(quiet: Quiet = False) -> None:
    """Choose a network, then its loss, then its optimiser, and say why; section `study` says how.

    What was chosen is in study/chosen.yaml, for `affectgap use`.

    Example: affectgap study
    """
    paths = _project()
    _need_git(paths.root)
    from flows.dvc_graph import changed_stages
    from flows.mending import mend
    from flows.study_state import StudyState

    state = StudyState(paths)
    out = console()
    for line in mend(paths):
        out.say(f"mended: {line}")
    changed = changed_stages(paths.root, "split")
    if not changed:
        state.look()
    if changed or not state.is_up_to_date(state.progress()):
        from flows.study import carry_out_study, check
        from tasks.core import tracking

        check(state)
        tracking.close_dead_runs(paths)
        carry_out_study(paths, state, changed, out, quiet)
    else:
        out.say("The study is up to date (DVC); nothing to do.")
    from flows.study_headline import study_lines

    for line in study_lines(paths, state):
        out.say(line)


@app.command()
def use(preset: Annotated[str, typer.Argument(help="A name in presets/, or a YAML file.")]) -> None:
    """Make a preset the params.yaml.

    Example: affectgap use london
    """
    from flows.presets import use_preset

    console().say(use_preset(_project().root, preset))


@app.command()
def intake(
    source: Annotated[
        Path | None, typer.Argument(help="A folder of pictures, or FER2013's CSV.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Name of the data set: its folder in data/raw.")
    ] = None,
) -> None:
    """Check new pictures and make them part of data/raw, tracked by DVC.

    Without SOURCE: every batch in data/inbox that is ready; one that cannot be taken in goes to
    data/quarantine, with its reasons, which is no failure of the command. How one that was taken in
    differs from what the model in use saw is told in reports/drift. With SOURCE: a whole data set,
    which is copied, all or nothing.

    Example: affectgap intake

    Example: affectgap intake ~/pictures --dataset mine
    """
    from flows.advice import advise_on_waiting
    from flows.intake import take_in, take_in_inbox

    paths, say = _project(), console().say
    _need_git(paths.root)
    if source is not None and dataset is not None:
        say(take_in(paths, source, dataset))
    elif source is None and dataset is None:
        if not take_in_inbox(paths, say):
            say(f"{paths.inbox}: holds no batch")
        advise_on_waiting(paths, say, at_intake=True)
    else:
        raise UserError("give SOURCE and --dataset (a whole data set), or neither (the inbox)")


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(help="Pictures; each may hold several faces.")],
    model: Annotated[
        str,
        typer.Option(help=f"champion (the model in use), {', '.join(EVALUATED)}, or a folder."),
    ] = "finetuned",
    explain: Annotated[
        bool, typer.Option("--explain", help="Draw what the model looks at.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Draw boxes and probabilities here.")] = None,
    figure: Annotated[
        Path | None,
        typer.Option(help="A PNG: each picture with its box, the crop and a bar a class."),
    ] = None,
) -> None:
    """Print one JSON line a face: box, probabilities, model version.

    Example: affectgap predict photo.jpg --figure faces.png
    """
    from flows.predict import Request, not_in_use, predict_faces

    paths = _project()
    if told := not_in_use(paths, model):
        Console(stderr=True).say(f"note: {told}")
    request = Request(tuple(images), model, explain, out, figure)
    failures = 0
    for line in predict_faces(paths, request):
        failures += "error" in line
        print(json_line(line), flush=True)
    if failures:
        raise UserError(f"{failures} of {len(images)} pictures could not be read; see above")


@app.command()
def audit(
    predictions: Annotated[Path, typer.Argument(help="CSV with emotion, y_pred and groups.")],
    out: Annotated[Path, typer.Option(help="Folder for tables and figures.")],
    by: Annotated[
        list[str] | None,
        typer.Option(help="A further column of the CSV to compare; may be repeated."),
    ] = None,
    pair: Annotated[
        tuple[str, str] | None,
        typer.Option(help="Two models of the CSV to compare, where it has more than two."),
    ] = None,
    bins: Annotated[
        list[str] | None,
        typer.Option(help="Compare a column of numbers in bins: age_years=10,18. May be repeated."),
    ] = None,
    depth: Annotated[
        int | None,
        typer.Option(min=1, max=4, help="Columns crossed at once: 2 for pairs, 3 for triples."),
    ] = None,
    independent_images: Annotated[
        bool | None,
        typer.Option(
            "--independent-images",
            help="Every image without a subject_id shows another person.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Audit any system's predictions by age, gender and any other column.

    The CSV needs the columns emotion and y_pred; image_id, subject_id, age_band (or age_years),
    gender, ethnicity, mouth, gaze, dataset, model, seen_in_training and p_<emotion> are used where
    they are there. Two models are compared picture by picture. audit.md says what could not be
    told without the others. Rows that cannot be audited are in rejects.csv. Tables with semicolons
    or tabs, in UTF-16 or Korean cp949, and .xlsx are read too. Images without a subject_id give no
    verdict, unless every one shows another person and --independent-images says so.

    Example: affectgap audit predictions.csv --out audit/ --by ethnicity
    """
    from tasks.audit.from_csv import audit_csv
    from tasks.audit.group_sizes import parse_bins
    from tasks.audit.settings import Settings
    from tasks.core.params import load_section, load_yaml

    params = _project().params
    settings = load_section(params, "audit", Settings)
    changed = {"depth": depth, "independent_images": independent_images}
    changed = {name: value for name, value in changed.items() if value is not None}
    settings = settings.model_copy(update=changed)
    bands = load_yaml(params).get("ingest", {}).get("age_bands", {})
    cut = parse_bins(bins or [])
    written = audit_csv(predictions, out, settings, pair, by or [], bands, cut)
    say = console().say
    for line in [*map(str, written.paths), *written.notes]:
        say(line)
    if written.kept:
        say(f"files of the same names that were there before are now in {written.kept}")


@datasets_app.callback(invoke_without_command=True)
def datasets(context: typer.Context) -> None:
    """List the data sets that are read here; show, count or fetch one.

    Example: affectgap datasets
    """
    if context.invoked_subcommand is None:
        _list_datasets()


@datasets_app.command("show")
def show_dataset(name: str) -> None:
    """Say what a data set is, how to get it and where to put it.

    Example: affectgap datasets show london
    """
    from tasks.ingest.datasets import describe_dataset

    for line in describe_dataset(name).splitlines():
        console().say(line)


@datasets_app.command("count")
def count_dataset(
    folder: Annotated[Path, typer.Argument(help="The data set's folder.")],
    adapter: Annotated[str, typer.Option(help="How its files are named; see affectgap datasets.")],
    out: Annotated[Path | None, typer.Option(help="Write the table here, as CSV.")] = None,
) -> None:
    """Count a data set's pictures by age, gender and ethnicity; nothing is decoded.

    The CSV is what the audit's section on pre-training data takes.

    Example: affectgap datasets count ~/fairface --adapter fairface --out demographics.csv
    """
    from flows.intake import count

    counted = count(_project(), folder, adapter, out)
    table = Table(box=None, pad_edge=False)
    for heading in counted.table.columns:
        table.add_column(heading)
    for attribute, group, n, share in counted.table.itertuples(index=False):
        table.add_row(attribute, group, str(n), f"{share:.4f}")
    terminal = console()
    terminal.print(table)
    terminal.say(counted.summary())
    if out is not None:
        terminal.say(str(out))


@datasets_app.command("fetch")
def fetch_dataset(name: str) -> None:
    """Download an open data set into the cache.

    Example: affectgap datasets fetch london
    """
    from tasks.ingest.datasets import fetch_dataset as fetch

    folder = fetch(name)
    console().say(str(folder))
    console().say(f"next: affectgap intake '{folder}' --dataset {name}")


def _project() -> Paths:
    paths = Paths(find_root(Path.cwd()))
    prepare_environment(paths.root)
    return paths


def _need_git(root: Path) -> None:
    """Raise where git cannot be used: DVC ties results to code and params through it."""
    if fault := repository_fault(root):
        raise UserError(f"{root}: {fault}")


def _print_headline(paths: Paths, out: Console) -> None:
    """Print the headline table, if there is a report, and where the report is."""
    if not paths.report.is_file():
        return
    from flows.headline import headline_table, notices

    out.print(headline_table(paths))
    for line in notices(paths):
        out.say(line, style="bold")
    out.say(f"report: {paths.report}")
    out.say(f"runs:   {where_runs_are(paths)}")


def _list_datasets() -> None:
    from tasks.ingest.datasets import list_datasets

    table = Table(box=None, pad_edge=False)
    for heading in ("name", "what it is", "licence"):
        table.add_column(heading, overflow="fold")
    for dataset in list_datasets():
        table.add_row(dataset.name, dataset.content, dataset.licence)
    terminal = console()
    terminal.print(table)
    terminal.say("`affectgap datasets show NAME` says how to get one and where to put it")
