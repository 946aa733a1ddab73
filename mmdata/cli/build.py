"""The command `build`: runs the graph in this process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmdata.cli import options

if TYPE_CHECKING:
    from rich.console import Console

    from mmdata.config import Corpus
    from mmdata.workspace.layout import Workspace
    from pipelines.watcher import Build

SHOWN_EVENTS = ("stage failed", "slice failed", "release is held")
"""Events of the log that the command prints in its own words."""


def build(
    config: options.ConfigOption = options.CONFIG,
    parts: Annotated[str | None, typer.Option(help="Build these parts only, e.g. web-000000,web-000003.")] = None,
    sources_only: Annotated[bool, typer.Option("--sources-only", help="Only look at the source files.")] = False,
    redo: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PART[:STAGE[:SLICE]]",
            help="Build the rows, media or features of this part again, or all three; of a slice, only media that are "
            "damaged are fetched again. `release` makes again what is damaged of the latest release. Can be repeated.",
        ),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Also show Dagster's log.")] = False,
    log_format: options.LogFormatOption = None,
    log_level: options.LogLevelOption = None,
    metrics_port: options.MetricsPortOption = None,
) -> None:
    """Bring every part up to date and make a release.

    Runs the same graph as the UI, without the UI. What is up to date is not built again. A part that fails, or
    a source of which no file can be read, does not stop the others: the release holds the rest, and the exit code is 1.
    It is 1, too, if the release is held, and 2 if a part failed because a package is missing or a setting is wrong.
    """
    options.log_as(log_format, log_level)
    for name in redo or []:
        forget_results(config, name)
    chosen = parts.split(",") if parts else None
    made = run_build(config, parts=chosen, sources_only=sources_only, verbose=verbose, metrics_port=metrics_port)
    if made.failed or made.bad_sources or made.is_held:
        raise typer.Exit(2 if made.user_error else 1)


def forget_results(config: Path, name: str) -> None:
    """Delete what the next build is to make again: `PART`, `PART:STAGE`, `PART:STAGE:SLICE`, or `release`.

    Raises:
        UserError: there is no such part, stage, slice or release.
    """
    from mmdata.errors import UserError
    from mmdata.workspace.layout import PART_STAGES

    corpus, workspace = options.open_corpus(config)
    if name == "release":
        from mmdata.publish.redo import forget_release

        forget_release(corpus, workspace)
        return
    part, _, rest = name.partition(":")
    wanted, _, slice_name = rest.partition(":")
    stages = [stage for stage in PART_STAGES if wanted in ("", stage)]
    if part not in workspace.catalog().parts:
        raise UserError(f"--redo {name}: no part {part} in this corpus; `mmdata status` lists the parts")
    if not stages:
        raise UserError(f"--redo {name}: no stage {wanted!r}; the stages are {', '.join(PART_STAGES)}")
    if slice_name and not any(workspace.table(part, stage, slice_name).exists() for stage in PART_STAGES):
        raise UserError(f"--redo {name}: {part} has no slice {slice_name}")
    for stage in reversed(stages):
        if slice_name:
            workspace.forget_slice(part, stage, slice_name)
        else:
            workspace.forget_stage(part, stage)


def run_build(
    config: Path,
    *,
    parts: list[str] | None = None,
    sources_only: bool = False,
    verbose: bool = False,
    metrics_port: int | None = None,
) -> Build:
    """Build, and show the progress. Raises DataError or UserError where no release could be made."""
    from mmdata.cli.console import BuildProgress, console
    from mmdata.errors import DataError, UserError
    from mmdata.observe import logs, metrics

    corpus, workspace = options.open_corpus(config)
    out = console()
    if parts is None and not sources_only and not verbose:
        result = _recorded_build(corpus, workspace)
        if result is not None:
            out.print("nothing has changed: the sources, every part and the release are up to date")
            _show_release(out, workspace, result)
            return result
    os.environ["MMDATA_CONFIG"] = str(config.absolute())  # the import below loads the graph, which reads it
    from pipelines.headless import build as build_graph

    metrics.start(options.observed(corpus, metrics_port))
    try:
        with BuildProgress(out) as progress, logs.shown_elsewhere(*SHOWN_EVENTS):
            result = build_graph(config, parts=parts, sources_only=sources_only, verbose=verbose, watcher=progress)
    finally:
        metrics.stop()
    for error in result.bad_sources.values():
        out.print("\n[red]a source is left out:[/red]")
        out.print(error, markup=False)
    for part, error in result.failed.items():
        out.print(f"\n[red]part {part} is left out:[/red]")
        out.print(error, markup=False)
    if result.error is not None:
        error_class = UserError if result.user_error else DataError
        raise error_class(f"no release was made: {result.error}")
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
    from mmdata.releases.draft import read_draft
    from mmdata.releases.drift import read_changes

    if result.release_id is not None:
        out.print(f"\nrelease {result.release_id}: {workspace.release_dir(result.release_id)}", markup=False)
    for latest in (report.text["latest"] for report in result.reports if report.stage == "release"):
        if latest.startswith("stays"):
            out.print(f"releases/latest {latest}", markup=False)
    changes = read_changes(workspace, read_draft(workspace).release_id)
    for line in changes["sudden"] if changes else ():
        out.print(f"sudden change: {line}", markup=False)
