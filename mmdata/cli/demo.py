"""`mmdata demo`: the whole road on this machine alone, on pictures served by itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from mmdata.demo.summary import DemoSummary


def demo(
    folder: Annotated[Path, typer.Option(help="Where the demo lies; made if it is not there.")] = Path("demo"),
    rows: Annotated[int, typer.Option(min=100, max=100_000, help="Rows of metadata, about.")] = 1500,
    ui: Annotated[bool, typer.Option("--ui", help="Open the demo in the Dagster UI, its web server running.")] = False,
    port: Annotated[int, typer.Option("--port", "-p", help="Port of the UI.")] = 3000,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show Dagster's log too.")] = False,
) -> None:
    """Build a small corpus made here.

    It has known faults, and what became of them is counted at the end. Needs no network: the pictures come from a
    package and are served on loopback, slow hosts and broken files included.
    """
    from mmdata.cli.console import console
    from mmdata.cli.graph import run_build, run_ui
    from mmdata.demo.corpus import make_demo, open_demo
    from mmdata.demo.server import DemoServer
    from mmdata.demo.summary import summarise

    out = console()
    there = open_demo(folder) if ui else None  # whatever its size
    corpus = there or make_demo(folder, rows)
    with DemoServer(corpus.site, port=corpus.port) as server:
        out.print(f"demo web server: {server.url}", markup=False)
        if ui:
            raise typer.Exit(run_ui(corpus.config_path, port))
        result = run_build(corpus.config_path, verbose=verbose)
    show(out, summarise(folder))
    out.print(f"look at it:   mmdata demo --ui{'' if folder == Path('demo') else f' --folder {folder}'}", markup=False)
    if result.failed:
        raise typer.Exit(1)


def show(out: Console, summary: DemoSummary) -> None:
    """The demo's summary: its figures, then its breakdowns side by side."""
    from rich.columns import Columns

    from mmdata.cli.console import facts, table
    from mmdata.demo.summary import lines

    (title, figures), *breakdowns = lines(summary)
    out.print()
    out.print(facts(title, figures))
    tables = [facts(f"\n{name}", values) for name, values in breakdowns if not name.startswith("kinds")]
    kinds = [(kind, count, summary.kinds_after.get(kind, 0)) for kind, count in summary.kinds_before.items()]
    tables.append(table("\nkinds", ("kind", "fetched", "kept"), kinds))
    out.print(Columns(tables, padding=(0, 4)))
    out.print()
