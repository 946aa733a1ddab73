"""The command `plan`: what the next build would do, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mmdata.cli.options import CONFIG, ConfigOption, open_corpus

if TYPE_CHECKING:
    from rich.console import Console

    from mmdata.inspect.next_build import RefreshPlan
    from mmdata.inspect.next_parts import PartWork

MAX_LINES = 40


def plan(
    config: ConfigOption = CONFIG,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as one JSON object.")] = False,
    fast: Annotated[bool, typer.Option("--fast", help="Read only the stamps of the parts.")] = False,
    every: Annotated[bool, typer.Option("--all", help=f"List every file and part, not only {MAX_LINES}.")] = False,
) -> None:
    """Show what the next build would do.

    Shows which source files are new or changed, which stages would run for which parts and why, and whether there
    would be a new release, and what balance would keep, drop and repeat by the counts of the latest selection. It
    changes nothing.
    """
    import json

    from mmdata.cli.console import console
    from mmdata.inspect.next_build import plan_refresh

    planned = plan_refresh(*open_corpus(config), fast=fast)
    if as_json:
        typer.echo(json.dumps(planned.to_json(), indent=1, ensure_ascii=False))
    else:
        _show(console(), planned, None if every else MAX_LINES)


def _show(out: Console, plan: RefreshPlan, shown: int | None) -> None:
    from mmdata.cli.console import print_table, table
    from mmdata.inspect.plan_text import amount, release_line

    if plan.files:
        files = [(file.path, file.what, file.rows, file.note) for file in plan.files]
        print_table(out, f"{len(plan.files)} source files", ("file", "what", "rows", ""), files, shown, ": --all")
    if plan.removed:
        out.print(f"{len(plan.removed)} parts leave: {', '.join(plan.removed[:10])}", markup=False)
    if plan.opt_out_changes:
        out.print("an opt-out list has changed: the rows of every part are checked, and the named samples removed")
    if plan.settings:
        rows = [(stage, setting, parts) for (stage, setting), parts in plan.settings.items()]
        out.print(table("changed settings of the parts", ("stage", "setting", "parts"), rows))
    if plan.work:
        lines = [line for part in plan.work[:shown] for line in _lines(part)]
        out.print(table(f"{len(plan.work)} of {plan.parts} parts", ("part", "stage", "slices", "work", "why"), lines))
        if shown is not None and len(plan.work) > shown:
            out.print(f"… and {len(plan.work) - shown} more: --all")
        sums = [(total.stage, total.parts, total.slices, amount(total)) for total in plan.totals]
        out.print(table("in all", ("stage", "parts", "slices", "work"), sums))
    else:
        out.print(f"all {plan.parts} parts are up to date")
    for name, why in list(plan.forecast.refused.items())[:shown]:
        out.print(f"left out: {name}: {why}", markup=False)
    out.print(f"\n{release_line(plan.forecast)}", markup=False)
    for why in plan.forecast.why:
        out.print(f"  {why}", markup=False)
    if plan.balance is not None:
        out.print(f"\n{plan.balance.line()}", markup=False)
        for warning in (*plan.balance.cut, *plan.balance.shortfalls):
            out.print(f"warning: {warning}", markup=False)


def _lines(part: PartWork) -> list[tuple[str, ...]]:
    from mmdata.inspect.plan_text import amount

    name = part.part.name
    lines: list[tuple[str, ...]] = [
        (name, work.stage, f"{work.slices} of {work.of}", amount(work), work.why) for work in part.stages
    ]
    return [*lines, (name, "", "", "", part.note)] if part.note else lines
