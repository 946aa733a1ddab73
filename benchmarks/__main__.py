"""`make bench`: run the benchmarks and print their table; names choose some, `--quick` makes the inputs small."""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.harness import Row, cores


def names() -> list[str]:
    """Names of the benchmarks: modules of this folder with a `run(quick)`; packages hold parts of benchmarks."""
    modules = pkgutil.iter_modules([str(Path(__file__).parent)])
    return sorted(m.name for m in modules if m.name not in ("harness", "__main__") and not m.ispkg)


def main() -> None:
    """Run the benchmarks and print a table of ratios."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("only", nargs="*", metavar="NAME", help="run only these")
    parser.add_argument("--quick", action="store_true", help="small inputs, only to see that it runs")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    options = parser.parse_args()
    rows: list[Row] = []
    console = Console(width=160)
    for name in options.only or names():
        console.print(f"[dim]running {name} …[/dim]")
        rows += importlib.import_module(f"benchmarks.{name}").run(quick=options.quick)
    console.print(_table(rows))
    if options.json:
        options.json.write_text(json.dumps([{**asdict(row), "ratio": row.ratio} for row in rows], indent=1))


def _table(rows: list[Row]) -> Table:
    table = Table(title=f"{cores()} cores; ratio: how many times better than the peer, medians of alternating runs")
    for column in ("benchmark", "ours", "peer", "unit", "ratio", "goal", "peak MiB ours/peer", "note"):
        table.add_column(column)
    for row in rows:
        goal = "" if row.goal is None else f"{row.goal:g}{' ok' if row.ratio >= row.goal else ' MISSED'}"
        peaks = f"{row.ours_peak_mib:,.0f} / {row.peer_peak_mib:,.0f}"
        figures = (f"{row.ours:,.4g}", f"{row.peer:,.4g}", row.unit, f"{row.ratio:.2f}")
        table.add_row(row.name, *figures, goal, peaks, row.note)
    return table


if __name__ == "__main__":
    main()
