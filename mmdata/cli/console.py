"""What the commands print: tables, stage reports and progress; plain lines where there is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from mmdata.display import shown
from mmdata.stage import StageReport

TOP = 4  # reasons shown of a stage
HEADLINES = {
    "source_catalog": ("files", "parts", "rows", "parts_added", "parts_removed", "files_unreadable"),
    "rows": ("rows", "uids", "bad"),
    "media": ("rows", "success", "failed_to_download", "failed_to_resize", "refused", "urls_per_s"),
    "features": ("rows", "scored", "images_per_s", "score_mean"),
    "selection": ("rows", "uids", "kept", "dropped", "repeats", "validation", "clip_score_threshold"),
    "shards": ("shards", "shards_reused", "shards_new", "samples", "samples_new", "bytes", "bytes_new"),
    "instructions": ("rows", "samples"),
    "report": (),
    **dict.fromkeys(("align", "joint", "instruct"), ("steps", "samples", "first_loss", "last_loss", "samples_per_s")),
}
"""What a line shows of a stage's report, in this order; of other stages it shows everything."""
EVERY_S = 5.0  # between plain progress lines


class SafeConsole(Console):
    """A console on which text from outside has no power: rich takes care of markup, this of escape sequences."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(shown(one) if isinstance(one, str) else one for one in objects), **options)


def console() -> Console:
    """Standard output; 120 columns where it is no terminal, so that lines do not depend on who reads them."""
    return SafeConsole(highlight=False, width=None if sys.stdout.isatty() else 120, soft_wrap=not sys.stdout.isatty())


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A table whose cells are shown as they are, markup and all."""
    made = Table(
        title=escape(shown(title)),
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        padding=(0, 2),
    )
    for column in columns:
        made.add_column(column, justify="left", overflow="fold")
    for row in rows:
        made.add_row(*(escape(_cell(value)) for value in row))
    return made


def facts(title: str, values: Mapping[str, object], *, grouped: bool = True) -> Table:
    """Names and values, one a line; `grouped` numbers have thousands separators, which a hash must not."""
    made = table(title, ("", ""), values.items() if grouped else [(name, str(one)) for name, one in values.items()])
    made.show_header = False
    return made


def summary_line(report: StageReport) -> str:
    """A report in one line: the figures that matter, zeros left out, then the commonest reasons."""
    values: dict[str, float] = {**report.counts, **report.numbers}
    names = HEADLINES.get(report.stage, tuple(values))
    figures = [f"{_cell(values[name])} {name.replace('_', ' ')}" for name in names if values.get(name)]
    ordered = sorted(report.reasons.items(), key=lambda item: (-item[1], item[0])) if names else []
    reasons = [f"{reason} {value:,}" for reason, value in ordered[:TOP]]
    more = [f"{len(ordered) - TOP} more"] if len(ordered) > TOP else []
    reused = [f"{report.slices_reused} slices reused"] if report.slices_reused and report.part else []
    line = ", ".join([*figures, *reused])
    return f"{line} ({', '.join(reasons + more)})" if reasons else line


class BuildProgress:
    """Draws a build: one bar for the parts, one for the stage at work. See pipelines.headless.BuildWatcher."""

    def __init__(self, out: Console) -> None:
        self.out = out
        self.bars = Progress(
            TextColumn("{task.description:<26}"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=out,
            transient=True,
            disable=not out.is_terminal,
        )
        self.parts = 0
        self.current: str | None = None
        self.overall: TaskID | None = None
        self.stage: TaskID | None = None
        self.spoke_at = time.monotonic()

    def __enter__(self) -> BuildProgress:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def plan(self, parts: Sequence[str]) -> None:
        self.parts = len(parts)
        if not parts:
            self.out.print("every part is up to date")
        elif len(parts) > 1:
            self.overall = self.bars.add_task("parts", total=len(parts))

    def begin(self, part: str | None) -> None:
        if self.overall is not None and self.current is not None:
            self.bars.advance(self.overall)
        self.current = part

    def started(self, stage: str, part: str | None) -> None:
        self._end_stage()
        self.stage = self.bars.add_task(escape(f"{stage} {part}" if part else stage), total=None)

    def progress(self, stage: str, done: int, total: int) -> None:
        label = f"{stage} {self.current}" if self.current else stage
        if self.stage is not None:
            self.bars.update(self.stage, description=escape(label), completed=done, total=total)
        if not self.out.is_terminal and time.monotonic() - self.spoke_at > EVERY_S:
            self.spoke_at = time.monotonic()
            self.out.print(escape(f"  {label}: {done:,} of {total:,}"))

    def waits(self, stage: str, part: str | None, holder: str) -> None:
        where = f"{stage} {part}" if part else stage
        self.out.print(f"[yellow]waits[/yellow]   {escape(f'{where:<26} for {shown(holder)}')}")

    def finished(self, report: StageReport) -> None:
        self._end_stage()
        where = f"{report.stage} {report.part}" if report.part else report.stage
        self.out.print(f"[green]done[/green]    {escape(f'{where:<26} {summary_line(report)}')}")

    def failed(self, stage: str, part: str | None, error: BaseException) -> None:
        self._end_stage()
        where = f"{stage} {part}" if part else stage
        self.out.print(f"[red]failed[/red]  {escape(f'{where:<26} {_first_line(error)}')}")

    def _end_stage(self) -> None:
        if self.stage is not None:
            self.bars.remove_task(self.stage)
            self.stage = None


def _first_line(error: BaseException) -> str:
    return shown((str(error) or type(error).__name__).splitlines()[0])


def _cell(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: ""}[value]
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else shown(str(value))
