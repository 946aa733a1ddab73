"""`mmdata`: every command, and how errors end it."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import typer

from mmdata.cli import corpus, demo, doctor, graph, plan, release, releases, takedown, training
from mmdata.cli.extras import remedy_for
from mmdata.display import shown
from mmdata.errors import MMDataError, UserError

DONE, DATA_PROBLEM, USER_ERROR, INTERRUPTED = 0, 1, 2, 130

app = typer.Typer(
    name="mmdata",
    help="From web metadata to balanced, deduplicated multimodal training shards, as one Dagster graph.",
    epilog="Exit codes: 0 done, 1 a data problem, 2 a user error. MMDATA_DEBUG=1 shows tracebacks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("init")(corpus.init)
app.command("build")(graph.build)
app.command("ui")(graph.ui)
app.command("plan")(plan.plan)
app.command("status")(corpus.status)
app.command("explain")(corpus.explain)
app.command("verify")(release.verify)
app.command("report")(release.report)
app.command("releases")(releases.releases)
app.command("diff")(releases.diff)
app.command("pin")(releases.pin)
app.command("unpin")(releases.unpin)
app.command("rollback")(releases.rollback)
app.command("gc")(releases.gc)
app.command("forget")(takedown.forget)
app.command("train")(training.train)
app.command("evaluate")(training.evaluate)
app.command("export")(training.export)
app.command("doctor")(doctor.doctor)
app.command("demo")(demo.demo)
app.command("schema")(corpus.schema)


def run() -> NoReturn:
    """The `mmdata` command."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else img2dataset's import asks the network for updates
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
    except KeyboardInterrupt:
        sys.stderr.write("stopped; what is finished is kept\n")
        sys.exit(INTERRUPTED)
    sys.exit(DONE)
