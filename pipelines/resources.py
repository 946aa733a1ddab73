"""The corpus as a Dagster resource: reads corpus.yaml, runs stage functions, tells whoever watches."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import cache
from typing import Any, Protocol

import dagster as dg
from pydantic import Field

from mmdata.config import Corpus, Refresh
from mmdata.config.load import load_corpus
from mmdata.display import markdown, shown
from mmdata.engine.freshness import PartPlan, plan_part
from mmdata.errors import MMDataError, PartFailed, UserError
from mmdata.inspect.progress import duration, seconds_left
from mmdata.observe import logs, metrics, metrics_files
from mmdata.stage import Progress, StageReport
from mmdata.workspace.attempts import begin_attempt, end_attempt, fail_attempt
from mmdata.workspace.layout import PartStage, Workspace
from mmdata.workspace.lease import Holder, Lease, leased

_log = logs.logger(__name__)

CONFIG_VARIABLE = "MMDATA_CONFIG"
POOLS = {"download": 2, "gpu": 1, "publish": 1}
"""Slots of each pool: how many runs may be in its stages at once. Change them in the UI, Deployment > Concurrency."""

RETRY = dg.RetryPolicy(max_retries=2, delay=5, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)
"""For faults that may pass, such as an object store's; what the data or the user got wrong fails at once."""

RELEASE_STAGES = frozenset({"source_catalog", "selection", "shards", "instructions", "release", "report"})
"""What works on the catalogue and the release in the making, one at a time; training holds nobody up."""

LOG_EVERY_S = 15.0


class Watcher(Protocol):
    """Someone in the same process who follows a run: the CLI."""

    def started(self, stage: str, part: str | None) -> None: ...

    def progress(self, stage: str, done: int, total: int) -> None: ...

    def finished(self, report: StageReport) -> None: ...

    def failed(self, stage: str, part: str | None, error: BaseException) -> None: ...

    def waits(self, stage: str, part: str | None, holder: str) -> None: ...


_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


@contextmanager
def watched_by(watcher: Watcher) -> Iterator[None]:
    """Within the block, runs of this thread tell `watcher` what they do."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def is_watched() -> bool:
    """Whether anyone in this process follows the run: the CLI does; the UI reads the run's log."""
    return _watcher.get() is not None


class CorpusResource(dg.ConfigurableResource):
    """A corpus and its workspace."""

    config_path: str | None = Field(default=None, description="corpus.yaml; by default what MMDATA_CONFIG names.")

    def open(self) -> tuple[Corpus, Workspace]:
        """Read corpus.yaml. Raises UserError where it is not named, missing or wrong."""
        path = self.config_path or os.environ.get(CONFIG_VARIABLE)
        if not path:
            raise UserError(
                f"no corpus is named. Remedy: set {CONFIG_VARIABLE}=/path/to/corpus.yaml, "
                "or start the UI with `mmdata ui -c corpus.yaml`"
            )
        corpus = load_corpus(path)
        logs.configure(corpus.observe)
        metrics_files.join()
        return corpus, Workspace(corpus.workspace)

    def run(
        self,
        context: dg.AssetExecutionContext,
        stage: str,
        function: Callable[[Corpus, Workspace, Progress], StageReport],
    ) -> StageReport:
        """Run a stage over the corpus."""
        with _told(context, stage, None) as since:
            corpus, workspace = self.open()
            with _leased(context, corpus, workspace, stage, None) as lease:
                return _tell(function(corpus, workspace, _progress(context, lease)), since)

    def run_part(
        self,
        context: dg.AssetExecutionContext,
        stage: PartStage,
        function: Callable[..., StageReport],
    ) -> StageReport:
        """Run a stage on the run's part; what becomes of the attempt is noted in the workspace."""
        part = context.partition_key
        with _told(context, stage, part) as since:
            corpus, workspace = self.open()
            entry = workspace.part(part)
            with _leased(context, corpus, workspace, stage, part) as lease:
                why = _why(plan_part(corpus, workspace, entry), stage)
                context.log.info(f"{stage} of {part} runs: {why}")
                attempt = begin_attempt(workspace, part, stage)
                try:
                    report = function(corpus, workspace, part, progress=_progress(context, lease))
                except Exception as error:
                    from mmdata.engine.part_run import describe

                    plan = plan_part(corpus, workspace, entry)
                    fail_attempt(workspace, part, stage, attempt, describe(error), plan.fingerprint)
                    raise
                end_attempt(workspace, part, stage)
            return _tell(replace(report, text={**report.text, "why it ran": markdown(why)}), since)


@cache
def refresh_settings() -> Refresh:
    """What the code location itself needs of corpus.yaml; the defaults where that cannot be read.

    The error is not lost: it is logged here, and every use of the resource raises it.
    """
    try:
        return CorpusResource().open()[0].refresh
    except UserError as error:
        dg.get_dagster_logger("pipelines").warning("%s", error)
        return Refresh()


@contextmanager
def _told(context: dg.AssetExecutionContext, stage: str, part: str | None) -> Iterator[float]:
    """Turn our errors into Dagster's, and tell the log and the watcher. Gives the time at which the stage began."""
    watcher = _watcher.get()
    if watcher:
        watcher.started(stage, part)
    since = time.monotonic()
    try:
        with interrupts_end_the_run(), logs.context(stage=stage, part=part):
            _log.info("stage begins")
            try:
                yield since
            except Exception as error:
                metrics.stage_failed(stage)
                _log.error("stage failed", error=error, seconds=time.monotonic() - since)
                raise
    except dg.Failure as stopped:
        if watcher:
            watcher.failed(stage, part, KeyboardInterrupt())
        raise stopped
    except MMDataError as error:
        if watcher:
            watcher.failed(stage, part, error)
        raise _failure(error) from error
    except Exception as error:
        if watcher:
            watcher.failed(stage, part, error)
        raise


@contextmanager
def _leased(
    context: dg.AssetExecutionContext, corpus: Corpus, workspace: Workspace, stage: str, part: str | None
) -> Iterator[Lease]:
    """Work on a part, or on the release, alone; another process that does is waited for."""
    watcher = _watcher.get()

    def told(holder: Holder) -> None:
        context.log.info(f"waiting for {holder}")
        if watcher:
            watcher.waits(stage, part, str(holder))

    what = f"{stage} of {part}" if part else stage
    name = f"part-{part}" if part else ("release" if stage in RELEASE_STAGES else f"train-{stage}")
    with leased(workspace, name, what, wait_s=corpus.engine.wait_s, on_wait=told) as lease:
        yield lease


@contextmanager
def interrupts_end_the_run() -> Iterator[None]:
    """Ctrl-C, and Terminate in the UI, stop the run: a retry policy alone would have Dagster start the step again."""
    try:
        yield
    except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError) as stop:
        raise dg.Failure("stopped; what is finished is kept", allow_retries=False) from stop


def _why(plan: PartPlan, stage: PartStage) -> str:
    """Why a stage of a part runs, as its plan has it at that moment."""
    if stage not in plan.stale:
        return "it was asked for; all of it is up to date"
    return plan.why if plan.stale[0] == stage else f"it follows {plan.stale[0]}"


def _failure(error: MMDataError) -> dg.Failure:
    metadata: dict[str, dg.MetadataValue] = {}
    if isinstance(error, PartFailed):
        records = [
            dg.TableRecord({"slice": name, "error": shown(text)}) for name, text in sorted(error.failures.items())
        ]
        metadata["failed slices"] = dg.MetadataValue.table(records)
    transient = isinstance(error, PartFailed) and error.transient
    return dg.Failure(description=shown(str(error)), metadata=metadata, allow_retries=transient)


def _tell(report: StageReport, since: float) -> StageReport:
    slices: dict[str, Any] = (
        {"slices_done": report.slices_done, "slices_reused": report.slices_reused} if report.part else {}
    )
    told: dict[str, Any] = {
        "seconds": time.monotonic() - since,
        **slices,
        "counts": report.counts,
        "reasons": report.reasons or None,
    }
    metrics.stage_done(report)
    _log.info("stage done", **told)
    if watcher := _watcher.get():
        watcher.finished(report)
    return report


def _progress(context: dg.AssetExecutionContext, lease: Lease) -> Progress:
    """The watcher's progress; with nobody there, a line in the run's log now and then. A lost lease ends the work."""
    watcher = _watcher.get()
    began = last = time.monotonic()
    first: int | None = None  # what earlier runs did comes at once, and says nothing of the pace

    def tell(stage: str, done: int, total: int) -> None:
        nonlocal first, last
        first = done if first is None else first
        lease.check()
        if watcher:
            watcher.progress(stage, done, total)
        elif time.monotonic() - last > LOG_EVERY_S:
            last = time.monotonic()
            left = seconds_left(done, total, first, last - began)
            context.log.info(f"{stage}: {done:,} of {total:,}" + (f", about {duration(left)} left" if left else ""))

    return tell
