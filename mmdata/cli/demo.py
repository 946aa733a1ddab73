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
    rows: Annotated[int, typer.Option(min=150, max=100_000, help="About this many rows of metadata.")] = 3000,
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
    summary = summarise(folder)
    show(out, summary)
    if train and result.release_id is not None:
        show_models(out, run_training(corpus.config_path, verbose), corpus.truth_path)
    out.print(f"report, to open in a browser: {summary.report}", markup=False)
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


def show_models(out: Console, reports: Sequence[StageReport], truth: Path) -> None:
    """Print losses, retrieval against chance, what the captions name, and where they stand beside their pictures."""
    from mmdata.cli.console import table

    *stages, evaluation = reports
    losses = ("first_loss", "last_loss", "val/loss")
    rows = [(report.stage, report.counts["steps"], *(report.numbers[name] for name in losses)) for report in stages]
    out.print()
    out.print(table("models", ("stage", "steps", "first loss", "last loss", "held-out loss"), rows))
    for line in (*retrieval_lines(evaluation), *caption_lines(evaluation, truth)):
        out.print(line, markup=False)
    answers = [row for row in evaluation.tables["answers"] if row["stage"] == "joint"][:5]
    columns = ("expected", "generated")
    out.print(table("\ncaptions of held-out pictures", columns, [[row[name] for name in columns] for row in answers]))
    if "captions" in evaluation.paths:
        out.print(f"captions beside their pictures: {evaluation.paths['captions']}", markup=False)
    if "report" in evaluation.paths:
        out.print(f"the release, with captions: {evaluation.paths['report']}#captions", markup=False)
    out.print(f"models: {evaluation.paths['models']}", markup=False)


def retrieval_lines(evaluation: StageReport) -> list[str]:
    """Recall@10 on the held-out split, both ways, against chance."""
    numbers, lines = evaluation.numbers, []
    for way in ("image_to_text", "text_to_image"):
        recall, chance = numbers[f"align/{way}/recall@10"], numbers[f"align/{way}/chance@10"]
        words = f"{recall:.1%}, {recall / chance:.1f} times chance ({chance:.2%})"
        lines.append(f"{way} Recall@10 on the held-out split: {words}")
    return lines


def caption_lines(evaluation: StageReport, truth: Path) -> list[str]:
    """What captions gain from their pictures: the loss and the named kinds, beside those with other pictures."""
    import json

    from mmdata.demo.named_kinds import named_kinds

    lines, numbers = [], evaluation.numbers
    if "joint/loss_with_other_pictures" in numbers:
        right, wrong = numbers["joint/loss"], numbers["joint/loss_with_other_pictures"]
        lines.append(f"held-out loss of captions: {right:.3f}; with the pictures of other samples: {wrong:.3f}")
    metrics = Path(evaluation.paths["models"]) / "joint" / "metrics.json"
    kinds = named_kinds(truth, json.loads(metrics.read_text())["answers"]) if metrics.exists() else None
    if kinds is not None:
        lines.append(
            f"captions that name the right kind: {kinds.right:.0%} of {kinds.pictures} held-out pictures; "
            f"with the pictures of other samples: {kinds.with_other_pictures:.0%}"
        )
    return lines
