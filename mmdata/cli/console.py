"""What the commands print: tables, stage reports and progress bars; plain lines where the output is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import progress as rich_progress
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mmdata.display import shown
from mmdata.stage import StageReport
from pipelines.watcher import Watcher

MAX_REASONS = 4  # in the line of a stage; the rest are counted
PLAIN_PROGRESS_EVERY_S = 5.0  # where the output is no terminal
HEADLINES = {
    "source_catalog": ("files", "parts", "rows", "parts_added", "parts_removed", "files_unreadable"),
    "rows": ("rows", "uids", "bad"),
    "media": ("rows", "success", "failed_to_download", "failed_to_resize", "refused", "urls_per_s"),
    "features": ("rows", "scored", "images_per_s", "score_mean"),
    "selection": ("rows", "uids", "kept", "dropped", "repeats", "validation", "clip_score_threshold"),
    "shards": ("shards", "shards_reused", "shards_new", "samples", "samples_new", "bytes", "bytes_new"),
    "instructions": ("rows", "samples"),
    "report": (),
    "evaluation": ("joint/loss", "joint/loss_with_other_pictures", "instruct/loss", "instruct/vqa_accuracy"),
    **dict.fromkeys(("align", "joint", "instruct"), ("steps", "samples", "first_loss", "last_loss", "samples_per_s")),
}
"""The figures in the line of a stage, in this order; the line of a stage that is not here has all of them."""

CHANGE_SUFFIXES = ("_new", "_reused")  # figures that compare a release with its parent


class SafeConsole(Console):
    """A console on which text from outside has no power: rich takes care of markup, this class of escape sequences."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(shown(item) if isinstance(item, str) else item for item in objects), **options)


def console() -> Console:
    """Standard output. It has 120 columns where it is no terminal, so that lines do not depend on who reads them."""
    is_terminal = sys.stdout.isatty()
    # `filter:top:score` is a reason, and not the name of an emoji
    return SafeConsole(highlight=False, emoji=False, width=None if is_terminal else 120, soft_wrap=not is_terminal)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A table whose cells are shown as they are, markup and all."""
    result = Table(
        title=escape(shown(title)), title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2)
    )
    for column in columns:
        result.add_column(column, justify="left", overflow="fold")
    for row in rows:
        result.add_row(*(escape(_cell(value)) for value in row))
    return result


def print_table(
    out: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], most: int | None, rest: str = ""
) -> None:
    """Print a table of the first `most` rows, and how many more there are; None prints all of them."""
    out.print(table(title, columns, rows[:most]))
    if most is not None and len(rows) > most:
        out.print(f"… and {len(rows) - most:,} more{rest}")


def facts(title: str, values: Mapping[str, object], *, grouped: bool = True) -> Table:
    """Names and values, one pair a line.

    Args:
        grouped: show numbers with thousands separators; not for hashes.
    """
    rows = values.items() if grouped else [(name, str(value)) for name, value in values.items()]
    result = table(title, ("", ""), rows)
    result.show_header = False
    return result


def summary_line(report: StageReport) -> str:
    """A report in one line: its main figures without zeros, then the commonest reasons.

    A stage that found all its work done says so, and names nothing as new: its figures compare the release with its
    parent, and not with the last build.
    """
    is_unchanged = report.part is None and report.slices_reused > 0 and report.slices_done == 0
    values: dict[str, float] = {**report.counts, **report.numbers}
    names = HEADLINES.get(report.stage, tuple(values))
    if is_unchanged:
        names = tuple(name for name in names if not name.endswith(CHANGE_SUFFIXES))
    figures = [f"{_cell(values[name])} {name.replace('_', ' ')}" for name in names if values.get(name)]
    ordered = sorted(report.reasons.items(), key=lambda item: (-item[1], item[0])) if names else []
    reasons = [f"{reason} {count:,}" for reason, count in ordered[:MAX_REASONS]]
    more = [f"{len(ordered) - MAX_REASONS} more"] if len(ordered) > MAX_REASONS else []
    reused = [f"{report.slices_reused} slices reused"] if report.slices_reused and report.part else []
    line = ("unchanged: " if is_unchanged else "") + ", ".join([*figures, *reused])
    return f"{line} ({', '.join(reasons + more)})" if reasons else line


def progress_bars(out: Console, *columns: rich_progress.ProgressColumn) -> rich_progress.Progress:
    """Bars with counts and time, and further columns; they show nothing where the output is no terminal."""
    first = (
        rich_progress.TextColumn("{task.description:<26}"),
        rich_progress.BarColumn(bar_width=32),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TimeElapsedColumn(),
    )
    return rich_progress.Progress(*first, *columns, console=out, transient=True, disable=not out.is_terminal)


class BuildProgress(Watcher):
    """Draws a build: one bar for the parts, one for the stage that runs."""

    def __init__(self, out: Console) -> None:
        self.out = out
        self.bars = progress_bars(out)
        self.current_part: str | None = None
        self.parts_bar: rich_progress.TaskID | None = None
        self.stage_bar: rich_progress.TaskID | None = None
        self.printed_at = time.monotonic()

    def __enter__(self) -> BuildProgress:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def plan(self, parts: Sequence[str]) -> None:
        if not parts:
            self.out.print("every part is up to date")
        elif len(parts) > 1:
            self.parts_bar = self.bars.add_task("parts", total=len(parts))

    def begin(self, part: str | None) -> None:
        if self.parts_bar is not None and self.current_part is not None:
            self.bars.advance(self.parts_bar)
        self.current_part = part

    def started(self, stage: str, part: str | None) -> None:
        self._remove_stage_bar()
        self.stage_bar = self.bars.add_task(escape(_stage_and_part(stage, part)), total=None)

    def progress(self, stage: str, done: int, total: int) -> None:
        label = _stage_and_part(stage, self.current_part)
        if self.stage_bar is not None:
            self.bars.update(self.stage_bar, description=escape(label), completed=done, total=total)
        if not self.out.is_terminal and time.monotonic() - self.printed_at > PLAIN_PROGRESS_EVERY_S:
            self.printed_at = time.monotonic()
            self.out.print(escape(f"  {label}: {done:,} of {total:,}"))

    def waits(self, stage: str, part: str | None, holder: str) -> None:
        self.out.print(f"[yellow]waits[/yellow]   {escape(f'{_stage_and_part(stage, part):<26} for {shown(holder)}')}")

    def finished(self, report: StageReport) -> None:
        self._remove_stage_bar()
        label = _stage_and_part(report.stage, report.part)
        self.out.print(f"[green]done[/green]    {escape(f'{label:<26} {summary_line(report)}')}")

    def failed(self, stage: str, part: str | None, error: BaseException) -> None:
        self._remove_stage_bar()
        # the error of a stage that belongs to no part ends the command, which prints it
        reason = _first_line(error) if part is not None else ""
        self.out.print(f"[red]failed[/red]  {escape(f'{_stage_and_part(stage, part):<26} {reason}'.rstrip())}")

    def _remove_stage_bar(self) -> None:
        if self.stage_bar is not None:
            self.bars.remove_task(self.stage_bar)
            self.stage_bar = None


def _stage_and_part(stage: str, part: str | None) -> str:
    return f"{stage} {part}" if part else stage


def _first_line(error: BaseException) -> str:
    return shown((str(error) or type(error).__name__).splitlines()[0])


def _cell(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: ""}[value]
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else shown(str(value))
