"""Commands about this machine: `doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def doctor(
    config: Annotated[Path | None, typer.Option("--config", "-c", help="Look at this corpus's workspace too.")] = None,
) -> None:
    """Check whether this machine is fit.

    Python, devices, memory, disk, optional packages, the network; exit code 1 if something is broken.
    """
    from rich.markup import escape

    from mmdata.cli.console import console
    from mmdata.inspect.machine import examine

    out = console()
    colours = {"ok": "green", "warning": "yellow", "error": "red"}
    broken = 0
    for one in examine(config):
        out.print(f"[{colours[one.verdict]}]{one.verdict:<8}[/] {one.name:<10} {escape(one.found)}")
        if one.remedy:
            out.print(f"{'':19} {escape(one.remedy)}")
        broken += one.verdict == "error"
    if broken:
        raise typer.Exit(1)
