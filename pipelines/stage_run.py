"""What surrounds the run of every stage: a lease, log lines, metrics, the watcher, and our errors as Dagster's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import dagster as dg

from mmdata.display import shown
from mmdata.errors import MMDataError, PartFailed
from mmdata.inspect.progress import duration, seconds_left
from mmdata.observe import logs, metrics
from mmdata.stage import Progress, StageReport
from mmdata.workspace.layout import Workspace
from mmdata.workspace.lease import Lease, leased
from mmdata.workspace.lease_store import Holder
from pipelines.watcher import watchers

_log = logs.logger(__name__)

RELEASE_STAGES = frozenset({"source_catalog", "selection", "shards", "instructions", "release", "report"})
"""Stages on the catalogue and the release in the making: one runs at a time. Training has leases of its own."""

LOG_EVERY_S = 15.0


@contextmanager
def announced(stage: str, part: str | None) -> Iterator[float]:
    """Tell the log and the watcher that a stage begins and how it fails; our errors become Dagster's.

    Yields:
        The time at which the stage began, of `time.monotonic`.
    """
    for watcher in watchers():
        watcher.started(stage, part)
    started_at = time.monotonic()
    try:
        with interrupts_end_the_run(), logs.context(stage=stage, part=part):
            _log.info("stage begins")
            try:
                yield started_at
            except Exception as error:
                metrics.stage_failed(stage)
                _log.error("stage failed", error=error, seconds=time.monotonic() - started_at)
                raise
    except Exception as error:
        for watcher in watchers():
            watcher.failed(stage, part, KeyboardInterrupt() if isinstance(error, dg.Failure) else error)
        if isinstance(error, MMDataError):
            raise dagster_failure(error) from error
        raise


def stage_lease(
    context: dg.AssetExecutionContext, workspace: Workspace, stage: str, part: str | None, wait_s: float
) -> AbstractContextManager[Lease]:
    """Hold the lease of a part or of the release; wait while another process holds it.

    Args:
        wait_s: how long to wait at most.

    Raises:
        LeaseHeld: the other process still holds it after that time.
    """

    def report_wait(holder: Holder) -> None:
        context.log.info(f"waiting for {holder}")
        for watcher in watchers():
            watcher.waits(stage, part, str(holder))

    purpose = f"{stage} of {part}" if part else stage
    name = f"part-{part}" if part else ("release" if stage in RELEASE_STAGES else f"train-{stage}")
    return leased(workspace, name, purpose, wait_s=wait_s, on_wait=report_wait)


@contextmanager
def interrupts_end_the_run() -> Iterator[None]:
    """Make Ctrl-C, and Terminate in the UI, end the run: the retry policy alone would start the step again."""
    try:
        yield
    except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError) as stop:
        raise dg.Failure("stopped; what is finished is kept", allow_retries=False) from stop


def dagster_failure(error: MMDataError) -> dg.Failure:
    """An error of ours as Dagster's; it is tried again only where the fault may pass by itself."""
    metadata: dict[str, dg.MetadataValue] = {}
    if isinstance(error, PartFailed):
        failures = sorted(error.failures.items())
        records = [dg.TableRecord({"slice": name, "error": shown(text)}) for name, text in failures]
        metadata["failed slices"] = dg.MetadataValue.table(records)
    may_pass = isinstance(error, PartFailed) and error.transient
    return dg.Failure(description=shown(str(error)), metadata=metadata, allow_retries=may_pass)


def finished(report: StageReport, started_at: float) -> StageReport:
    """Tell the log, the metrics and the watcher that a stage is done; returns its report."""
    slices: dict[str, Any] = (
        {"slices_done": report.slices_done, "slices_reused": report.slices_reused} if report.part else {}
    )
    seconds = time.monotonic() - started_at
    metrics.stage_done(report)
    _log.info("stage done", seconds=seconds, **slices, counts=report.counts, reasons=report.reasons or None)
    for watcher in watchers():
        watcher.finished(report)
    return report


def lease_checking_progress(context: dg.AssetExecutionContext, lease: Lease) -> Progress:
    """A progress for the watcher, or without one for the run's log; it ends the work where the lease was lost."""
    followers = watchers()
    began_at = logged_at = time.monotonic()
    first: int | None = None  # what earlier runs did is reported at once, and says nothing about the pace

    def report(stage: str, done: int, total: int) -> None:
        nonlocal first, logged_at
        first = done if first is None else first
        lease.check()
        for watcher in followers:
            watcher.progress(stage, done, total)
        if not followers and time.monotonic() - logged_at > LOG_EVERY_S:
            logged_at = time.monotonic()
            left_s = seconds_left(done, total, first, logged_at - began_at)
            remaining = f", about {duration(left_s)} left" if left_s else ""
            context.log.info(f"{stage}: {done:,} of {total:,}{remaining}")

    return report
