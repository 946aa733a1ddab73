"""`mmdata`: the table of its commands, and how an error ends one."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from typing import Annotated, NoReturn

import typer

from mmdata.cli import (
    build,
    compare,
    demo,
    doctor,
    explain,
    forget,
    init,
    network,
    plan,
    releases,
    status,
    training,
    ui,
)
from mmdata.cli.extras import remedy_for
from mmdata.display import shown
from mmdata.errors import MMDataError, UserError, describe_machine_error

DONE, DATA_PROBLEM, USER_ERROR, INTERRUPTED = 0, 1, 2, 130

app = typer.Typer(
    name="mmdata",
    help="Build balanced, deduplicated multimodal training shards from web metadata, as one Dagster graph.",
    epilog="Exit codes: 0 success, 1 a problem with the data, 2 an error of the user. MMDATA_DEBUG=1 shows tracebacks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"mmdata {version('mmdata')}")
        raise typer.Exit


@app.callback()
def options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Build balanced, deduplicated multimodal training shards from web metadata, as one Dagster graph."""


for command in (
    *(init.init, build.build, ui.ui, plan.plan, status.status, explain.explain, releases.verify, releases.report),
    *(releases.releases, releases.diff, releases.pin, releases.unpin, releases.rollback, releases.gc, forget.forget),
    *(
        compare.compare,
        network.network,
        training.train,
        training.evaluate,
        training.export,
        doctor.doctor,
        demo.demo,
        init.schema,
    ),
):
    app.command(command.__name__)(command)


def run() -> NoReturn:
    """The `mmdata` command."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else the import of img2dataset asks for updates
    try:
        app(prog_name="mmdata")
    except MMDataError as error:
        if os.environ.get("MMDATA_DEBUG") == "1":
            raise
        sys.stderr.write(f"error: {shown(str(error))}\n")
        sys.exit(USER_ERROR if isinstance(error, UserError) else DATA_PROBLEM)
    except ModuleNotFoundError as error:
        remedy = remedy_for(error)
        if remedy is None:
            raise
        sys.stderr.write(f"error: {remedy}\n")
        sys.exit(USER_ERROR)
    except Exception as error:
        refusal = describe_machine_error(error)
        if refusal is None or os.environ.get("MMDATA_DEBUG") == "1":
            raise
        sys.stderr.write(f"error: {shown(refusal)}\n")
        sys.exit(USER_ERROR)
    except KeyboardInterrupt:
        sys.stderr.write("stopped; what is finished is kept\n")
        sys.exit(INTERRUPTED)
    sys.exit(DONE)
