"""The command `demo`: all stages on this machine, without network, with pictures from its own web server."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from mmdata.demo.demo_summary import DemoSummary
    from mmdata.stage import StageReport


def demo(
    folder: Annotated[Path, typer.Option(help="The folder of the demo; it is created if needed.")] = Path("demo"),
    rows: Annotated[int, typer.Option(min=150, max=100_000, help="About this many rows of metadata.")] = 2000,
    ui: Annotated[bool, typer.Option("--ui", help="Open the demo in the Dagster UI.")] = False,
    port: Annotated[int, typer.Option("--port", "-p", help="Port of the UI.")] = 3000,
    train: Annotated[bool, typer.Option(help="Train the three stages on the release too.")] = True,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Also show Dagster's log.")] = False,
) -> None:
    """Build a small generated corpus.

    Its rows have known faults, and the end of the output counts how each was handled. It needs no network: the
    pictures come from a package and are served on loopback, with slow hosts and broken files among them.
    """
    from mmdata.cli.build import run_build
    from mmdata.cli.console import console
    from mmdata.demo.demo_folder import make_demo, open_demo
    from mmdata.demo.demo_summary import summarise
    from mmdata.demo.web_server import DemoServer

    out = console()
    existing = open_demo(folder) if ui else None  # of any size
    corpus = existing or make_demo(folder, rows)
    with DemoServer(corpus.site, port=corpus.port) as server:
        out.print(f"demo web server: {server.url}", markup=False)
        if ui:
            from mmdata.cli.ui import run_ui

            raise typer.Exit(run_ui(corpus.config_path, port))
        result = run_build(corpus.config_path, verbose=verbose)
    show(out, summarise(folder))
    if train and result.release_id is not None:
        show_models(out, run_training(corpus.config_path, verbose))
    out.print(f"look at it: {how_to_look(folder)}", markup=False)
    if result.failed:
        raise typer.Exit(1)


def how_to_look(folder: Path) -> str:
    """The command that opens the UI, as it can be typed here: with make, or by the path of this program."""
    if "MAKELEVEL" in os.environ and folder == Path("demo"):
        return "make ui"
    program = "mmdata" if shutil.which("mmdata") else str(Path(sys.executable).with_name("mmdata"))
    return f"{program} demo --ui{'' if folder == Path('demo') else f' --folder {folder}'}"


def show(out: Console, summary: DemoSummary) -> None:
    """The demo's summary: its figures, then its breakdowns side by side."""
    from rich.columns import Columns

    from mmdata.cli.console import facts, table
    from mmdata.demo.demo_summary import summary_tables

    (title, figures), *breakdowns = summary_tables(summary)
    out.print()
    out.print(facts(title, figures))
    tables = [facts(f"\n{name}", values) for name, values in breakdowns if not name.startswith("kinds")]
    kinds = [(kind, count, summary.kinds_after.get(kind, 0)) for kind, count in summary.kinds_before.items()]
    tables.append(table("\nkinds", ("kind", "fetched", "kept"), kinds))
    out.print(Columns(tables, padding=(0, 4)))
    out.print()


def run_training(config: Path, verbose: bool) -> list[StageReport]:
    """Train and evaluate the three stages through the graph, with progress shown."""
    from mmdata.cli.console import BuildProgress, console
    from pipelines.headless import train as run

    with BuildProgress(console()) as progress:
        return run(config, verbose=verbose, watcher=progress)


def show_models(out: Console, reports: Sequence[StageReport]) -> None:
    """Print losses before and after training, retrieval against chance, and captions of held-out pictures."""
    from mmdata.cli.console import table

    *stages, evaluation = reports
    losses = ("first_loss", "last_loss", "val/loss")
    rows = [(report.stage, report.counts["steps"], *(report.numbers[name] for name in losses)) for report in stages]
    out.print()
    out.print(table("models", ("stage", "steps", "first loss", "last loss", "held-out loss"), rows))
    numbers = evaluation.numbers
    for way in ("image_to_text", "text_to_image"):
        recall, chance = numbers[f"align/{way}/recall@1"], numbers[f"align/{way}/chance@1"]
        out.print(
            f"{way} Recall@1 on the held-out split: {recall:.1%}, {recall / chance:.1f} times chance", markup=False
        )
    answers = [row for row in evaluation.tables["answers"] if row["stage"] == "joint"][:5]
    columns = ("expected", "generated")
    out.print(table("\ncaptions of held-out pictures", columns, [[row[name] for name in columns] for row in answers]))
    out.print(f"models: {evaluation.paths['models']}", markup=False)
