"""Who follows a run: the watchers of a thread, and the collector of reports."""

from __future__ import annotations

import threading

from mmdata.errors import DataError
from mmdata.stage import StageReport
from pipelines.watcher import ReportCollector, Watcher, watched_by, watchers


def test_watchers_follow_their_own_thread_and_only_within_the_block() -> None:
    watcher = Watcher()
    seen: list[object] = []
    with watched_by(watcher):
        assert watchers() == (watcher,)
        other = threading.Thread(target=lambda: seen.append(watchers()))
        other.start()
        other.join()
    assert seen == [()]
    assert watchers() == ()


def test_the_collector_keeps_the_reports_and_the_last_error() -> None:
    collector = ReportCollector()
    collector.started("rows", "p")
    collector.progress("rows", 1, 2)
    collector.finished(StageReport("rows", "p"))
    collector.failed("media", "p", DataError("cut"))
    assert [report.stage for report in collector.reports] == ["rows"]
    assert str(collector.error) == "cut"
