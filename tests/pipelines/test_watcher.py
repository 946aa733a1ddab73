"""Who follows a run: one thread's watcher, and the collector that passes everything on."""

from __future__ import annotations

import threading

from mmdata.errors import DataError
from mmdata.stage import StageReport
from pipelines.watcher import ReportCollector, current_watcher, watched_by


class Recorder:
    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def started(self, stage: str, part: str | None) -> None:
        self.calls.append(("started", stage, part))

    def progress(self, stage: str, done: int, total: int) -> None:
        self.calls.append(("progress", stage, done, total))

    def finished(self, report: StageReport) -> None:
        self.calls.append(("finished", report.stage))

    def waits(self, stage: str, part: str | None, holder: str) -> None:
        self.calls.append(("waits", stage, part, holder))

    def failed(self, stage: str, part: str | None, error: BaseException) -> None:
        self.calls.append(("failed", stage, part, str(error)))


def test_a_watcher_follows_its_own_thread_and_only_within_the_block() -> None:
    watcher = Recorder()
    seen: list[object] = []
    with watched_by(watcher):
        assert current_watcher() is watcher
        other = threading.Thread(target=lambda: seen.append(current_watcher()))
        other.start()
        other.join()
    assert seen == [None]
    assert current_watcher() is None


def test_the_collector_keeps_reports_and_the_last_error_and_passes_everything_on() -> None:
    recorder = Recorder()
    collector = ReportCollector(recorder)
    collector.started("rows", "p")
    collector.waits("rows", "p", "another build")
    collector.progress("rows", 1, 2)
    collector.finished(StageReport("rows", "p"))
    collector.failed("media", "p", DataError("cut"))
    assert [call[0] for call in recorder.calls] == ["started", "waits", "progress", "finished", "failed"]
    assert [report.stage for report in collector.reports] == ["rows"]
    assert str(collector.error) == "cut"
