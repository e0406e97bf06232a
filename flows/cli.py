"""The `affectgap` command. Heavy libraries are imported by the commands that need them."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from flows.outages import outage_message, runs_location
from flows.process_env import clean_arguments, export_command_id, prepare_environment
from flows.project_commands import operations_app
from tasks.core.errors import FULL, AffectGapError, UserError, is_full
from tasks.core.files import restrict_umask
from tasks.core.paths import EVALUATED, Paths, find_root
from tasks.core.terminal import (
    Console,
    console,
    flush_output,
    json_line,
    prepare_output,
    print_error,
)
from tasks.core.tracking.versions import repository_fault

app = typer.Typer(
    help="Train facial-emotion recognizers, measure their recall by age and gender, and fine-tune "
    "them on children.",
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
    """Run the command line; exit with 0 on success, 2 on a user error, 1 on a failure."""
    restrict_umask()
    export_command_id()
    prepare_output()
    sys.argv[1:] = clean_arguments(sys.argv[1:])
    try:
        app()
    except AffectGapError as error:
        print_error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print_error("interrupted; run the same command again to continue")
        sys.exit(130)
    except Exception as error:
        if is_full(error):
            print_error(FULL)
            sys.exit(1)
        if outage := outage_message(error):
            print_error(outage)
            sys.exit(1)
        if not isinstance(error, OSError) or error.filename is None:  # a defect: show the traceback
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
    """Bring all results up to date and print where the report is.

    Example: affectgap run
    """
    paths = _project()
    _need_git(paths.root)
    from flows.pipeline.dvc_graph import changed_stages, stage_graph
    from tasks.core.params import load_yaml

    load_yaml(paths.params)  # a torn file gets our message, not DVC's
    out = console()
    _repair(paths, out)
    if target is not None:
        stage_graph(paths.root, target)  # raises if there is no such stage
    if changed := changed_stages(paths.root, target):
        from flows.pipeline.flow import reproduce
        from tasks.core.tracking import mlflow_runs

        mlflow_runs.close_dead_runs(paths)
        reproduce(paths, target, changed, out, quiet)
    else:
        out.say("Everything is up to date (DVC); nothing to do.")
    if target in (None, "report"):  # after other targets the tables are from an earlier run
        _print_headline(paths, out)


@app.command()
def study(quiet: Quiet = False) -> None:
    """Choose a network, then its loss, then its optimizer.

    The rounds follow section `study` of params.yaml; the choice is written to study/chosen.yaml,
    for `affectgap use`.

    Example: affectgap study
    """
    paths = _project()
    _need_git(paths.root)
    from flows.pipeline.dvc_graph import changed_stages
    from flows.study.state import StudyState

    state = StudyState(paths)
    out = console()
    _repair(paths, out)
    changed = changed_stages(paths.root, "split")
    if not changed:
        state.look()
    if changed or not state.is_up_to_date(state.progress()):
        from flows.study.flow import check, run_study
        from tasks.core.tracking import mlflow_runs

        check(state)
        mlflow_runs.close_dead_runs(paths)
        run_study(paths, state, changed, out, quiet)
    else:
        out.say("The study is up to date (DVC); nothing to do.")
    from flows.study.flow import study_lines

    for line in study_lines(paths, state):
        out.say(line)


@app.command()
def use(preset: Annotated[str, typer.Argument(help="A name in presets/, or a YAML file.")]) -> None:
    """Copy a preset to params.yaml.

    Example: affectgap use london
    """
    from flows.presets import use_preset

    console().say(use_preset(_project().root, preset))


@app.command()
def intake(
    source: Annotated[
        Path | None, typer.Argument(help="A folder of images, or FER2013's CSV.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Name of the data set: its folder in data/raw.")
    ] = None,
) -> None:
    """Check new images and add them to data/raw, tracked by DVC.

    Without SOURCE, every ready batch in data/inbox is imported. A batch that fails its checks goes
    to data/quarantine with the reasons; that is no failure of the command. reports/drift shows how
    each accepted batch differs from what the model in use saw. With SOURCE, a whole data set is
    copied, all or nothing.

    Example: affectgap intake

    Example: affectgap intake ~/images --dataset mine
    """
    from flows.drift.reports import report_drift_of_waiting
    from flows.intake.intake import intake_dataset, intake_inbox

    paths, say = _project(), console().say
    _need_git(paths.root)
    if source is not None and dataset is not None:
        say(intake_dataset(paths, source, dataset))
    elif source is None and dataset is None:
        if not intake_inbox(paths, say):
            say(f"{paths.inbox}: holds no batch")
        report_drift_of_waiting(paths, say, at_intake=True)
    else:
        raise UserError("give SOURCE and --dataset (a whole data set), or neither (the inbox)")


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(help="Images; each may show several faces.")],
    model: Annotated[
        str,
        typer.Option(help=f"champion (the model in use), {', '.join(EVALUATED)}, or a folder."),
    ] = "finetuned",
    explain: Annotated[
        bool, typer.Option("--explain", help="Draw which regions the model relies on (LIME).")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Draw boxes and probabilities here.")] = None,
    figure: Annotated[
        Path | None,
        typer.Option(help="A PNG: each image with its boxes, its crops and one bar per class."),
    ] = None,
) -> None:
    """Print one JSON line per face.

    It holds the face's box, the probabilities and the model version.

    Example: affectgap predict photo.jpg --figure faces.png
    """
    from flows.predict.predict import Request, model_note, predict_faces

    paths = _project()
    if note := model_note(paths, model):
        Console(stderr=True).say(f"note: {note}")
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
        typer.Option(help="Another column of the CSV to compare; may be repeated."),
    ] = None,
    pair: Annotated[
        tuple[str, str] | None,
        typer.Option(help="Two models of the CSV to compare, if it has more than two."),
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
            help="Each image without a subject_id shows another person.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Audit any predictions by age, gender and other columns.

    The CSV needs the columns emotion and y_pred. If present, image_id, subject_id, age_band (or
    age_years), gender, ethnicity, mouth, gaze, dataset, model, seen_in_training and p_<emotion> are
    used. Two models are compared image by image. audit.md lists what could not be computed because
    a column is missing; rows that cannot be audited are in rejects.csv.

    Tables with semicolons or tabs, in UTF-16 or Korean cp949, and .xlsx files are read too. Images
    without a subject_id give no verdict, unless each of them shows another person and
    --independent-images says so.

    Example: affectgap audit predictions.csv --out audit/ --by ethnicity
    """
    from tasks.audit.csv_audit.audit_csv import audit_csv
    from tasks.audit.measures.group_columns import parse_bins
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
        say(f"existing files of the same names were moved to {written.kept}")


@datasets_app.callback(invoke_without_command=True)
def datasets(context: typer.Context) -> None:
    """List the supported data sets; show, count or fetch one.

    Example: affectgap datasets
    """
    if context.invoked_subcommand is None:
        _list_datasets()


@datasets_app.command("show")
def show_dataset(name: str) -> None:
    """Show what a data set holds, how to get it and where to put it.

    Example: affectgap datasets show london
    """
    from flows.datasets.fetch import describe_dataset

    for line in describe_dataset(name).splitlines():
        console().say(line)


@datasets_app.command("count")
def count_dataset(
    folder: Annotated[Path, typer.Argument(help="The data set's folder.")],
    adapter: Annotated[str, typer.Option(help="How its files are named; see affectgap datasets.")],
    out: Annotated[Path | None, typer.Option(help="Write the table here, as CSV.")] = None,
) -> None:
    """Count a data set's images by age, gender and ethnicity.

    No image is decoded. The audit's section on pre-training data takes the CSV.

    Example: affectgap datasets count ~/fairface --adapter fairface --out demographics.csv
    """
    from flows.intake.intake import count

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
    from flows.datasets.fetch import fetch_dataset as fetch

    folder = fetch(name)
    console().say(str(folder))
    console().say(f"next: affectgap intake '{folder}' --dataset {name}")


def _project() -> Paths:
    paths = Paths(find_root(Path.cwd()))
    prepare_environment(paths.root)
    return paths


def _need_git(root: Path) -> None:
    """Raise UserError if git cannot be used: DVC ties results to code and params through it."""
    if fault := repository_fault(root):
        raise UserError(f"{root}: {fault}")


def _repair(paths: Paths, out: Console) -> None:
    """Repair what a killed DVC left behind, one line each."""
    from flows.pipeline.dvc_repair import repair

    for line in repair(paths):
        out.say(f"mended: {line}")


def _print_headline(paths: Paths, out: Console) -> None:
    """Print the summary table and the report's path, if there is a report."""
    if not paths.report.is_file():
        return
    from flows.pipeline.run_summary import headline_table, notices

    out.print(headline_table(paths))
    for line in notices(paths):
        out.say(line, style="bold")
    out.say(f"report: {paths.report}")
    out.say(f"runs:   {runs_location(paths)}")


def _list_datasets() -> None:
    from flows.datasets.fetch import list_datasets

    table = Table(box=None, pad_edge=False)
    for heading in ("name", "what it is", "licence"):
        table.add_column(heading, overflow="fold")
    for dataset in list_datasets():
        table.add_row(dataset.name, dataset.content, dataset.licence)
    terminal = console()
    terminal.print(table)
    terminal.say("`affectgap datasets show NAME` says how to get one and where to put it")
