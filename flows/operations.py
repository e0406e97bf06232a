"""Commands for running affectgap for months: retraining, promotion, registry, lineage, repair."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.environment import prepare_environment
from tasks.core.paths import Paths, find_root
from tasks.core.terminal import console

operations_app = typer.Typer()

By = Annotated[str, typer.Option(help="Who decides; kept with the decision.")]
Why = Annotated[str, typer.Option(help="The reason; kept with the decision.")]


@operations_app.command()
def retrain(
    now: Annotated[bool, typer.Option("--now", help="Train, whatever the policy says.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Plain lines without bars.")] = False,
) -> None:
    """Do one pass: take in the inbox, train where the policy says so, judge, promote.

    Example: affectgap retrain
    """
    from flows.retrain import retrain as one_pass

    paths = _project()
    _say(one_pass(paths, console(), quiet=quiet, now=now))


@operations_app.command()
def serve(
    port: Annotated[
        int,
        typer.Option(min=0, max=65_535, help="Port of the Prefect server on 127.0.0.1; 0: any."),
    ] = 4200,
) -> None:
    """Stand by: look into the inbox on a schedule, retrain, promote, audit; until Ctrl-C.

    Example: affectgap serve
    """
    paths = _project()
    from flows.serve import serve as stand_by

    stand_by(paths, port, console())


@operations_app.command()
def ui(
    port: Annotated[
        int, typer.Option(min=1, max=65_535, help="Port of MLflow's pages on 127.0.0.1.")
    ] = 5000,
) -> None:
    """Show the runs in MLflow's pages, which ask for the project's secret; until Ctrl-C.

    Example: affectgap ui
    """
    paths = _project()
    from flows.ui import serve_pages

    serve_pages(paths, port, console())


@operations_app.command()
def status(
    ui: Annotated[
        bool, typer.Option("--ui", help="Only where the pages are, and the secret they ask for.")
    ] = False,
) -> None:
    """Show in one screen the model in use, its worst group, the inbox, last runs and the next.

    Leaves with 1 where something of it cannot be read, and says what.

    Example: affectgap status
    """
    from flows.status import status_lines, ui_lines

    paths = _project()
    if ui:
        _say(ui_lines(paths))
        return
    lines, whole = status_lines(paths)
    _say(lines)
    if not whole:
        sys.exit(1)


@operations_app.command()
def withdraw(batch: str, why: Why, by: By = "") -> None:
    """Take a batch out of data/raw again; it goes to data/quarantine, whole, with the reason.

    That erases nothing: the output lists what stays, and where.

    Example: affectgap withdraw 2026-11-site-3 --why "anger and disgust were mixed up"
    """
    from flows.intake import what_stays
    from flows.intake import withdraw as take_out

    paths = _project()
    _say([take_out(paths, batch, why, by), *what_stays(paths, batch)])


@operations_app.command()
def promote(
    approve: Annotated[int | None, typer.Option(help="A version that waits for approval.")] = None,
    by: By = "",
    why: Why = "",
) -> None:
    """Judge the challenger against the model in use; with --approve, let a waiting one through.

    Example: affectgap promote --approve 4 --by "A. Weber" --why "table read, no group harmed"
    """
    from flows.promote import promote_command

    _say(promote_command(_project(), approve, by, why))


@operations_app.command("gate-power")
def gate_power(
    test_subjects: Annotated[
        int | None, typer.Option(min=2, max=100_000, help="What if there were so many test people.")
    ] = None,
    pictures_per_person: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="Default: as in the data, else 10.")
    ] = None,
    recall: Annotated[
        float | None,
        typer.Option(min=0.01, max=0.99, help="Of the model in use. Default: as measured, or .8."),
    ] = None,
    disagreement: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            max=0.9,
            help="Share of pictures that only one of two versions reads right. Default: as "
            "registered versions answered, or .1.",
        ),
    ] = None,
    icc: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=0.9,
            help="Correlation of the changes of one person's pictures. Default: as registered "
            "versions answered, or .05.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the table here, as CSV.")] = None,
) -> None:
    """Show how often the gate would err: equally good versions refused, and losses caught.

    For the test people of the data (or --test-subjects), section promote of params.yaml, and other
    margins; before anything is trained.

    Example: affectgap gate-power --test-subjects 100
    """
    from flows.gate_power import Asked, gate_power

    asked = Asked(test_subjects, pictures_per_person, recall, disagreement, icc)
    table, lines = gate_power(_project(), asked, out)
    console().print(table)
    _say(lines)


@operations_app.command()
def rollback(why: Why = "", by: By = "") -> None:
    """Put the previous model back into use.

    Example: affectgap rollback --why "complaints from site 3"
    """
    from flows.registry import rollback_command

    _say(rollback_command(_project(), why, by))


@operations_app.command()
def models(
    version: Annotated[
        int | None, typer.Option(help="Only name every data batch that this one was trained with.")
    ] = None,
    reregister: Annotated[
        int | None, typer.Option(help="Only renew the code that this version is served with.")
    ] = None,
) -> None:
    """List the versions of the model: worst group, data batches, decision, which one is in use.

    Example: affectgap models
    """
    from flows.registry import batches_lines, models_table, reregister_command

    if reregister is not None:
        _say(reregister_command(_project(), reregister))
    elif version is None:
        console().print(models_table(_project()))
    else:
        _say(batches_lines(_project(), version))


@operations_app.command()
def lineage(
    what: Annotated[
        str, typer.Argument(help="An image_id or file, a subject_id, a batch, or a version.")
    ],
    out: Annotated[Path | None, typer.Option(help="Write the pictures here, as CSV.")] = None,
) -> None:
    """Say which models saw a picture or person, or which pictures and people a model saw.

    Example: affectgap lineage drawn/D0012
    """
    from flows.lineage import lineage_lines

    _say(lineage_lines(_project(), what, out))


@operations_app.command()
def doctor() -> None:
    """Find and mend what a crash left; leaves with 1 where something needs a person.

    Example: affectgap doctor
    """
    from flows.doctor import examine

    findings = examine(_project(close=False))
    _say([str(finding) for finding in findings] or ["nothing to mend"])
    if any(not finding.mended for finding in findings):
        sys.exit(1)


def _project(close: bool = True) -> Paths:
    paths = Paths(find_root(Path.cwd()))
    prepare_environment(paths.root, close)
    return paths


def _say(lines: list[str]) -> None:
    out = console()
    for line in lines:
        out.say(line)
