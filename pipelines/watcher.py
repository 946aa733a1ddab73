"""Who follows a build in the same process, and what the build gives back. Does not import Dagster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol

from mmdata.stage import StageReport


class Watcher(Protocol):
    """Someone in the same process who follows a run: the command line."""

    def started(self, stage: str, part: str | None) -> None: ...

    def progress(self, stage: str, done: int, total: int) -> None: ...

    def finished(self, report: StageReport) -> None: ...

    def failed(self, stage: str, part: str | None, error: BaseException) -> None: ...

    def waits(self, stage: str, part: str | None, holder: str) -> None: ...


class BuildWatcher(Watcher, Protocol):
    """Follows a build part by part."""

    def plan(self, parts: Sequence[str]) -> None:
        """These parts will run, in this order."""

    def begin(self, part: str | None) -> None:
        """A part begins; None: the release begins."""


@dataclass(frozen=True, slots=True)
class Build:
    """The result of a build.

    Args:
        reports: of every stage that ran, in order; none where nothing had to be done.
        failed: part -> why it is not in the release.
        release_id: the latest release after the build; None before the first.
        error: why no release could be made; None: one was made, or none was to be made.
    """

    reports: list[StageReport]
    failed: dict[str, str]
    release_id: str | None
    error: str | None = None


@dataclass
class ReportCollector:
    """A watcher that keeps the reports and the last error of the stages, and passes everything on."""

    watcher: Watcher | None
    reports: list[StageReport] = field(default_factory=list)
    error: BaseException | None = None

    def started(self, stage: str, part: str | None) -> None:
        if self.watcher:
            self.watcher.started(stage, part)

    def progress(self, stage: str, done: int, total: int) -> None:
        if self.watcher:
            self.watcher.progress(stage, done, total)

    def finished(self, report: StageReport) -> None:
        self.reports.append(report)
        if self.watcher:
            self.watcher.finished(report)

    def waits(self, stage: str, part: str | None, holder: str) -> None:
        if self.watcher:
            self.watcher.waits(stage, part, holder)

    def failed(self, stage: str, part: str | None, error: BaseException) -> None:
        self.error = error
        if self.watcher:
            self.watcher.failed(stage, part, error)


_current: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


def current_watcher() -> Watcher | None:
    """Who follows the runs of this thread; None in the UI, where the run's log is read."""
    return _current.get()


@contextmanager
def watched_by(watcher: Watcher) -> Iterator[None]:
    """Within the block, runs of this thread report to `watcher`."""
    token = _current.set(watcher)
    try:
        yield
    finally:
        _current.reset(token)
