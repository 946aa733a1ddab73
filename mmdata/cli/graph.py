"""Commands that run the graph: `build` in this process, `ui` in Dagster's web interface."""

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
    from rich.console import Console

    from mmdata.config import Corpus, Observe
    from mmdata.workspace.layout import Workspace
    from pipelines.watcher import Build


def build(
    config: ConfigOption = CONFIG,
    parts: Annotated[str | None, typer.Option(help="Build these parts only, e.g. web-000000,web-000003.")] = None,
    sources_only: Annotated[bool, typer.Option("--sources-only", help="Only look at the source files.")] = False,
    redo: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PART[:STAGE]",
            help="Build the rows, media or features of this part again, or all three; can be repeated.",
        ),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Also show Dagster's log.")] = False,
    log_format: LogFormatOption = None,
    log_level: LogLevelOption = None,
    metrics_port: MetricsPortOption = None,
) -> None:
    """Bring every part up to date and make a release.

    Runs the same graph as the UI, without the UI. What is up to date is not built again. A part that fails does not
    stop the other parts: the release holds the rest, and the exit code is 1.
    """
    log_as(log_format, log_level)
    for part_and_stage in redo or []:
        forget_stages(config, part_and_stage)
    chosen = parts.split(",") if parts else None
    if run_build(config, parts=chosen, sources_only=sources_only, verbose=verbose, metrics_port=metrics_port).failed:
        raise typer.Exit(1)


def forget_stages(config: Path, part_and_stage: str) -> None:
    """Delete what the stages of a part have made, given as `PART` or `PART:STAGE`.

    Raises:
        UserError: there is no such part or stage.
    """
    from mmdata.errors import UserError
    from mmdata.workspace.layout import PART_STAGES

    _, workspace = open_corpus(config)
    part, _, wanted = part_and_stage.partition(":")
    stages = [stage for stage in PART_STAGES if wanted in ("", stage)]
    if part not in workspace.catalog().parts:
        raise UserError(f"--redo {part_and_stage}: no part {part} in this corpus; `mmdata status` lists the parts")
    if not stages:
        raise UserError(f"--redo {part_and_stage}: no stage {wanted!r}; the stages are {', '.join(PART_STAGES)}")
    for stage in reversed(stages):
        workspace.forget_stage(part, stage)


def run_build(
    config: Path,
    *,
    parts: list[str] | None = None,
    sources_only: bool = False,
    verbose: bool = False,
    metrics_port: int | None = None,
) -> Build:
    """Build, and show the progress. Raises DataError where no release could be made."""
    from mmdata.cli.console import BuildProgress, console
    from mmdata.errors import DataError
    from mmdata.observe import metrics

    corpus, workspace = open_corpus(config)
    out = console()
    if parts is None and not sources_only and not verbose:
        result = _recorded_build(corpus, workspace)
        if result is not None:
            out.print("nothing has changed: the sources, every part and the release are up to date")
            _show_release(out, workspace, result)
            return result
    os.environ["MMDATA_CONFIG"] = str(config.absolute())  # the import below loads the graph, which reads it
    from pipelines.headless import build as build_graph

    metrics.start(observed(corpus, metrics_port))
    try:
        with BuildProgress(out) as progress:
            result = build_graph(config, parts=parts, sources_only=sources_only, verbose=verbose, watcher=progress)
    finally:
        metrics.stop()
    for part, error in result.failed.items():
        out.print(f"\n[red]part {part} is left out:[/red]")
        out.print(error, markup=False)
    if result.error is not None:
        raise DataError(f"no release was made: {result.error}")
    if not sources_only:
        _show_release(out, workspace, result)
    return result


def _recorded_build(corpus: Corpus, workspace: Workspace) -> Build | None:
    """The last build, where this one would do nothing and the UI has a recent record of it; Dagster is not imported."""
    from pipelines.home import is_recorded
    from pipelines.watcher import Build

    latest = workspace.latest()
    if latest is None or not is_recorded(workspace, latest):
        return None
    from mmdata.inspect.up_to_date import up_to_date_release

    release_id = up_to_date_release(corpus, workspace)
    return Build([], {}, release_id) if release_id is not None else None


def _show_release(out: Console, workspace: Workspace, result: Build) -> None:
    """Print where the release is, why it is not the latest if so, and what changed suddenly in it."""
    from mmdata.releases.drift import changes_of

    if result.release_id is not None:
        out.print(f"\nrelease {result.release_id}: {workspace.release_dir(result.release_id)}", markup=False)
    for latest in (report.text["latest"] for report in result.reports if report.stage == "release"):
        if latest.startswith("stays"):
            out.print(f"it {latest}", markup=False)
    changes = changes_of(workspace, workspace.draft()["release_id"])
    for line in changes["sudden"] if changes else ():
        out.print(f"sudden change: {line}", markup=False)


def ui(
    config: ConfigOption = CONFIG,
    port: Annotated[int, typer.Option("--port", "-p", help="Port of the web server.")] = 3000,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Anyone who can reach it can run the graph.")
    ] = "127.0.0.1",
    log_format: LogFormatOption = None,
    log_level: LogLevelOption = None,
    metrics_port: MetricsPortOption = None,
) -> None:
    """Open the corpus in the Dagster UI.

    The UI shows the graph with its figures and pictures, and starts runs by a click. While it runs, the nightly
    schedules and the sensor that builds new parts run too; its Automation page turns them off.
    """
    log_as(log_format, log_level)
    raise typer.Exit(run_ui(config, port, host, metrics_port))


def run_ui(config: Path, port: int, host: str = "127.0.0.1", metrics_port: int | None = None) -> int:
    """Serve the UI until it is stopped; returns its exit code."""
    from mmdata.observe.metrics_files import gathered
    from pipelines.home import dagster_home
    from pipelines.instance import open_instance

    corpus, workspace = open_corpus(config)
    open_instance(workspace).dispose()  # this sets the sizes of the pools
    home = dagster_home(workspace)
    environment = os.environ | {"DAGSTER_HOME": str(home), "MMDATA_CONFIG": str(config.absolute())}
    no_hint = "ignore:Function `dev_command`"  # it advises `dg dev`, which needs a project laid out in its own way
    server = ["dagster", "dev", "-m", "pipelines.definitions", "-p", str(port), "-h", host]
    command = [sys.executable, "-W", no_hint, "-m", *server]
    typer.echo(f"the UI opens at http://{host}:{port} in some seconds; Ctrl-C stops it. Runs are kept in {home}")
    # Not in the folder of the corpus: Dagster would read a pyproject.toml or a .env there.
    with gathered(observed(corpus, metrics_port), home / "metrics") as metrics_environment:
        return run_until_stopped(command, environment | metrics_environment, home)


def observed(corpus: Corpus, metrics_port: int | None) -> Observe:
    """Section `observe` of corpus.yaml, with the port of the command line if there is one."""
    return corpus.observe if metrics_port is None else corpus.observe.model_copy(update={"metrics_port": metrics_port})


def run_until_stopped(command: list[str], environment: dict[str, str], folder: Path) -> int:
    """Run a server, pass signals on to it, and return its exit code."""
    # It gets a session of its own, so that Ctrl-C in a terminal reaches it once, through this process, and not twice.
    process = subprocess.Popen(command, env=environment, cwd=folder, start_new_session=True)

    def stop(*_: object) -> None:
        process.send_signal(signal.SIGINT)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        return process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
