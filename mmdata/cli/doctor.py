"""The command `doctor`: whether mmdata can work on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def doctor(
    config: Annotated[Path | None, typer.Option("--config", "-c", help="A corpus.yaml to check too.")] = None,
) -> None:
    """Check whether mmdata can work on this machine.

    Checks Python, devices, memory, disk, optional packages and the network. The exit code is 1 if something is broken.
    """
    from rich.markup import escape

    from mmdata.cli.console import console
    from mmdata.inspect.machine import examine

    out = console()
    colours = {"ok": "green", "warning": "yellow", "error": "red"}
    broken = 0
    for check in examine(config):
        out.print(f"[{colours[check.verdict]}]{check.verdict:<8}[/] {check.name:<10} {escape(check.found)}")
        if check.remedy:
            out.print(f"{'':19} {escape(check.remedy)}")
        broken += check.verdict == "error"
    if broken:
        raise typer.Exit(1)
