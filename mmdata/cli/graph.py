"""Commands that run the graph: `build` here, `ui` in Dagster's web interface."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmdata.cli.options import (
    CONFIG,
    ConfigOption,
    LogFormatOption,
    LogLevelOption,
    MetricsPortOption,
    log_as,
    open_corpus,
)

if TYPE_CHECKING:
    from mmdata.config import Corpus, Observe
    from pipelines.headless import Build


def build(
    config: ConfigOption = CONFIG,
    parts: Annotated[str | None, typer.Option(help="Work on these parts only, e.g. web-000000,web-000003.")] = None,
    sources_only: Annotated[bool, typer.Option("--sources-only", help="Only look at the source files.")] = False,
    redo: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PART[:STAGE]", help="Make this part's rows, media or features (or all) anew; repeatable."
        ),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show Dagster's log too.")] = False,
    log_format: LogFormatOption = None,
    log_level: LogLevelOption = None,
    metrics_port: MetricsPortOption = None,
) -> None:
    """Bring every part up to date and release.

    The same graph as in the UI, without it; what is fresh is left alone. A part that fails does not stop
    the others; the release holds the rest, and the exit code is 1.
    """
    log_as(log_format, log_level)
    for one in redo or []:
        forget(config, one)
    chosen = parts.split(",") if parts else None
    if run_build(config, parts=chosen, sources_only=sources_only, verbose=verbose, metrics_port=metrics_port).failed:
        raise typer.Exit(1)


def forget(config: Path, named: str) -> None:
    """Take away what a part's stages have made, `PART` or `PART:STAGE`. Raises UserError where there is none such."""
    from mmdata.errors import UserError
    from mmdata.workspace.layout import PART_STAGES

    _, workspace = open_corpus(config)
    name, _, wanted = named.partition(":")
    stages = [stage for stage in PART_STAGES if wanted in ("", stage)]
    if name not in workspace.catalog().parts:
        raise UserError(f"--redo {named}: no part {name} in this corpus; `mmdata status` lists the parts")
    if not stages:
        raise UserError(f"--redo {named}: no stage {wanted!r}; the stages are {', '.join(PART_STAGES)}")
    for stage in reversed(stages):
        workspace.forget_stage(name, stage)


def run_build(
    config: Path,
    *,
    parts: list[str] | None = None,
    sources_only: bool = False,
    verbose: bool = False,
    metrics_port: int | None = None,
) -> Build:
    """Build with progress shown. Raises DataError where no release could be made."""
    from mmdata.cli.console import BuildProgress, console
    from mmdata.errors import DataError
    from mmdata.observe import metrics
    from mmdata.releases.drift import changes_of

    corpus, workspace = open_corpus(config)
    os.environ["MMDATA_CONFIG"] = str(config.absolute())  # read when the graph is loaded: the next line
    from pipelines.headless import build as run

    out = console()
    metrics.start(observed(corpus, metrics_port))
    try:
        with BuildProgress(out) as progress:
            result = run(config, parts=parts, sources_only=sources_only, verbose=verbose, watcher=progress)
    finally:
        metrics.stop()
    for part, error in result.failed.items():
        out.print(f"\n[red]part {part} is left out:[/red]")
        out.print(error, markup=False)
    if result.error is not None:
        raise DataError(f"no release was made: {result.error}")
    if result.release_id is not None and not sources_only:
        out.print(f"\nrelease {result.release_id}: {workspace.release_dir(result.release_id)}", markup=False)
        for told in (one.text["latest"] for one in result.reports if one.stage == "release"):
            if told.startswith("stays"):
                out.print(f"it {told}", markup=False)
    if result.error is None and not sources_only:
        changes = changes_of(workspace, workspace.draft()["release_id"])
        for line in changes["sudden"] if changes else ():
            out.print(f"sudden change: {line}", markup=False)
    return result


def ui(
    config: ConfigOption = CONFIG,
    port: Annotated[int, typer.Option("--port", "-p", help="Port of the web server.")] = 3000,
    host: Annotated[
        str, typer.Option(help="Address to listen on; anyone who reaches it can run the graph.")
    ] = "127.0.0.1",
    log_format: LogFormatOption = None,
    log_level: LogLevelOption = None,
    metrics_port: MetricsPortOption = None,
) -> None:
    """Open the corpus in the Dagster UI.

    The graph with its figures and pictures, runs by a click. While it runs, so do the nightly schedules and the
    sensor that builds new parts; its Automation page turns them off.
    """
    log_as(log_format, log_level)
    raise typer.Exit(run_ui(config, port, host, metrics_port))


def run_ui(config: Path, port: int, host: str = "127.0.0.1", metrics_port: int | None = None) -> int:
    """Serve the UI until it is stopped; returns its exit code."""
    from mmdata.observe.metrics_files import gathered
    from pipelines.instance import dagster_home, open_instance

    corpus, workspace = open_corpus(config)
    open_instance(workspace).dispose()  # sizes the pools
    home = dagster_home(workspace)
    environment = os.environ | {"DAGSTER_HOME": str(home), "MMDATA_CONFIG": str(config.absolute())}
    quiet = "ignore:Function `dev_command`"  # "use dg dev", which wants a project laid out its own way
    command = [
        sys.executable,
        "-W",
        quiet,
        "-m",
        "dagster",
        "dev",
        "-m",
        "pipelines.definitions",
        "-p",
        str(port),
        "-h",
        host,
    ]
    typer.echo(f"the UI opens at http://{host}:{port} in some seconds; Ctrl-C stops it. Runs are kept in {home}")
    # Not in the corpus's folder: Dagster would read a pyproject.toml or a .env that lies there.
    with gathered(observed(corpus, metrics_port), home / "metrics") as shared:
        return run_until_stopped(command, environment | shared, home)


def observed(corpus: Corpus, metrics_port: int | None) -> Observe:
    """How a corpus is observed, with the port of the command line where that names one."""
    return corpus.observe if metrics_port is None else corpus.observe.model_copy(update={"metrics_port": metrics_port})


def run_until_stopped(command: list[str], environment: dict[str, str], folder: Path) -> int:
    """Run a server; signals go on to it, and it has the last word."""
    # In a session of its own: Ctrl-C in a terminal reaches it once, through us, and not twice.
    process = subprocess.Popen(command, env=environment, cwd=folder, start_new_session=True)

    def stop(*_: object) -> None:
        process.send_signal(signal.SIGINT)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        return process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
