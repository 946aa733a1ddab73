"""Who follows a build in the same process, and what the build gives back. Does not import Dagster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from mmdata.stage import StageReport


class Watcher:
    """Someone in the same process who follows runs; this one ignores everything, and others override what they need."""

    def started(self, stage: str, part: str | None) -> None:
        """A stage begins."""

    def progress(self, stage: str, done: int, total: int) -> None:
        """A stage has done so many of its samples."""

    def finished(self, report: StageReport) -> None:
        """A stage is done."""

    def failed(self, stage: str, part: str | None, error: BaseException) -> None:
        """A stage ended with an error; KeyboardInterrupt: somebody stopped it."""

    def waits(self, stage: str, part: str | None, holder: str) -> None:
        """A stage waits for another process, which holds its lease."""

    def plan(self, parts: Sequence[str]) -> None:
        """A build will run these parts, in this order."""

    def begin(self, part: str | None) -> None:
        """A build begins a part; None: it begins the release."""


@dataclass(frozen=True, slots=True)
class Build:
    """The result of a build.

    Args:
        reports: of every stage that ran, in order; none where nothing had to be done.
        failed: part -> why it is not in the release.
        release_id: the latest release after the build; None before the first.
        error: why no release could be made; None: one was made, or none was to be made.
        is_held: whether a release was made that does not become the latest by itself.
        bad_sources: source -> why none of its files could be read.
        user_error: a part or the release failed by a mistake of the user, such as a missing package.
    """

    reports: list[StageReport]
    failed: dict[str, str]
    release_id: str | None
    error: str | None = None
    is_held: bool = False
    bad_sources: Mapping[str, str] = field(default_factory=dict)
    user_error: bool = False


@dataclass
class ReportCollector(Watcher):
    """Keeps the reports and the last error of the stages."""

    reports: list[StageReport] = field(default_factory=list)
    error: BaseException | None = None

    def finished(self, report: StageReport) -> None:
        self.reports.append(report)

    def failed(self, stage: str, part: str | None, error: BaseException) -> None:
        self.error = error


_current: ContextVar[tuple[Watcher, ...]] = ContextVar("watchers", default=())


def watchers() -> tuple[Watcher, ...]:
    """Those who follow the runs of this thread; nobody in the UI, where the log of the run is read."""
    return _current.get()


@contextmanager
def watched_by(*watchers: Watcher) -> Iterator[None]:
    """Within the block, runs of this thread report to these watchers."""
    token = _current.set(watchers)
    try:
        yield
    finally:
        _current.reset(token)
