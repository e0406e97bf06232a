"""Commands of continuous operation: retraining, promotion, registry, lineage, repair."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.process_env import prepare_environment
from tasks.core.paths import Paths, find_root
from tasks.core.terminal import console

operations_app = typer.Typer()

By = Annotated[str, typer.Option(help="Who decides; recorded with the decision.")]
Why = Annotated[str, typer.Option(help="The reason; recorded with the decision.")]


@operations_app.command()
def retrain(
    now: Annotated[
        bool, typer.Option("--now", help="Train even if the policy does not ask for it.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Plain lines without bars.")] = False,
) -> None:
    """Import the inbox; if due, train, evaluate and promote.

    Example: affectgap retrain
    """
    from flows.retraining.retrain import retrain as run_pass

    paths = _project()
    _say(run_pass(paths, console(), quiet=quiet, now=now))


@operations_app.command()
def serve(
    port: Annotated[
        int,
        typer.Option(min=0, max=65_535, help="Port of the Prefect server on 127.0.0.1; 0: any."),
    ] = 4200,
) -> None:
    """Import, retrain and audit on a schedule, until Ctrl-C.

    Example: affectgap serve
    """
    paths = _project()
    from flows.daemon.daemon import serve as run_daemon

    run_daemon(paths, port, console())


@operations_app.command()
def ui(
    port: Annotated[
        int, typer.Option(min=1, max=65_535, help="Port of MLflow's pages on 127.0.0.1.")
    ] = 5000,
) -> None:
    """Serve MLflow's pages until Ctrl-C.

    They ask for the project's secret.

    Example: affectgap ui
    """
    paths = _project()
    from flows.ui import serve_pages

    serve_pages(paths, port, console())


@operations_app.command()
def status(
    ui: Annotated[
        bool, typer.Option("--ui", help="Show only the pages' addresses and their secret.")
    ] = False,
) -> None:
    """Show the model in use, the inbox, and last and next runs.

    Exits with 1 if something cannot be read, and says what.

    Example: affectgap status
    """
    from flows.daemon.status import status_lines, ui_lines

    paths = _project()
    if ui:
        _say(ui_lines(paths))
        return
    lines, complete = status_lines(paths)
    _say(lines)
    if not complete:
        sys.exit(1)


@operations_app.command()
def withdraw(batch: str, why: Why, by: By = "") -> None:
    """Move a batch from data/raw to data/quarantine.

    This erases nothing: the output lists what remains, and where.

    Example: affectgap withdraw 2026-11-site-3 --why "anger and disgust were mixed up"
    """
    from flows.intake.intake import remaining_copies
    from flows.intake.intake import withdraw as withdraw_batch

    paths = _project()
    _say([withdraw_batch(paths, batch, why, by), *remaining_copies(paths, batch)])


@operations_app.command()
def promote(
    approve: Annotated[
        int | None, typer.Option(help="Promote this version, which waits for approval.")
    ] = None,
    by: By = "",
    why: Why = "",
) -> None:
    """Evaluate the challenger, or promote a waiting version.

    Example: affectgap promote --approve 4 --by "A. Weber" --why "table read, no group harmed"
    """
    from flows.registry.promotion import promote_command

    _say(promote_command(_project(), approve, by, why))


@operations_app.command("gate-power")
def gate_power(
    test_subjects: Annotated[
        int | None, typer.Option(min=2, max=100_000, help="Assume this number of test subjects.")
    ] = None,
    images_per_person: Annotated[
        int | None,
        typer.Option(
            min=1, max=10_000, help="Images per subject. Default: as in the data, else 10."
        ),
    ] = None,
    recall: Annotated[
        float | None,
        typer.Option(
            min=0.01, max=0.99, help="Recall of the model in use. Default: as measured, else 0.8."
        ),
    ] = None,
    disagreement: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            max=0.9,
            help="Share of images that only one of two versions gets right. Default: as measured "
            "on registered versions, else 0.1.",
        ),
    ] = None,
    icc: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=0.9,
            help="Correlation of changes within one subject. Default: as measured on registered "
            "versions, else 0.05.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the table here, as CSV.")] = None,
) -> None:
    """Show how often the promotion gate would err.

    It may refuse equally good versions or miss losses. The rates hold for the test subjects of the
    data (or --test-subjects), section `promote` of params.yaml and other margins, and need no
    training.

    Example: affectgap gate-power --test-subjects 100
    """
    from flows.registry.gate_power import GatePowerOptions, gate_power

    asked = GatePowerOptions(test_subjects, images_per_person, recall, disagreement, icc)
    table, lines = gate_power(_project(), asked, out)
    console().print(table)
    _say(lines)


@operations_app.command()
def rollback(why: Why = "", by: By = "") -> None:
    """Put the previous model back into use.

    Example: affectgap rollback --why "complaints from site 3"
    """
    from flows.registry.model_table import rollback_command

    _say(rollback_command(_project(), why, by))


@operations_app.command()
def models(
    version: Annotated[
        int | None, typer.Option(help="List only the data batches of this version.")
    ] = None,
    reregister: Annotated[
        int | None, typer.Option(help="Only renew the serving code of this version.")
    ] = None,
) -> None:
    """List the model versions, their batches and decisions.

    Example: affectgap models
    """
    from flows.registry.model_table import batches_lines, models_table, reregister_command

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
    out: Annotated[Path | None, typer.Option(help="Write the images here, as CSV.")] = None,
) -> None:
    """Show which models saw an image or subject, or the reverse.

    Example: affectgap lineage drawn/D0012
    """
    from flows.lineage.lineage import lineage_lines

    _say(lineage_lines(_project(), what, out))


@operations_app.command()
def doctor() -> None:
    """Find and repair what a crash left.

    Exits with 1 if something needs a person.

    Example: affectgap doctor
    """
    from flows.doctor.doctor import examine

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
