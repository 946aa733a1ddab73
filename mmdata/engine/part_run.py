"""Run a stage over the slices of a part: skip fresh slices, isolate failures, publish tables, write stamps."""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any

import pyarrow as pa

from mmdata.config import Engine
from mmdata.errors import MMDataError, PartFailed, UserError
from mmdata.fingerprint import fingerprint
from mmdata.observe import logs, metrics, relay
from mmdata.stage import add_counts
from mmdata.storage.tables import write_table
from mmdata.workspace.layout import PartStage, PartStamp, SliceStamp, Workspace, part_digest

_log = logs.logger(__name__)


@dataclass(frozen=True, slots=True)
class SliceResult:
    """The result of the work on one slice: its table, sorted by uid, the counts for its stamp, and fetch metrics."""

    table: pa.Table
    counts: Mapping[str, int] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)
    next_retry_at: str | None = None
    seen: metrics.Fetches | None = None


@dataclass(frozen=True, slots=True)
class PartResult:
    """The result of a part's stage over all its slices, including the reused ones."""

    stamp: PartStamp
    slices: Mapping[str, SliceStamp]
    done: int
    reused: int


VOLATILE = frozenset({"attempts", "next_retry_at", "fetched_at", "etag", "detail"})
"""Columns about the fetching and not about the sample: two correct runs differ in them."""

FILLED_LATER = frozenset({"text_embedding"})
"""Columns that may be filled in later, and follow from others: the caption, and the scorer that the schema names."""

Work = Callable[[str], SliceResult]
"""Does the work of the slice of a name. Picklable (a partial of a module's function) if there are several workers."""


def run_part_stage(
    workspace: Workspace,
    part: str,
    stage: PartStage,
    *,
    settings: str,
    inputs: Mapping[str, str],
    upstream: str,
    work: Work,
    engine: Engine,
    named: Mapping[str, Any] | None = None,
    deciding: Mapping[str, Any] | None = None,
    is_due: Callable[[SliceStamp], bool] = lambda stamp: False,
    accept: Callable[[Mapping[str, SliceStamp]], str | None] = lambda slices: None,
) -> PartResult:
    """Bring one stage of one part up to date: run the slices that are missing, stale or due, then stamp the part.

    A slice's table is published before its stamp, and the part's stamp last. A slice that raises fails alone.

    Args:
        settings: fingerprint of the stage's code version and of the settings that change its output.
        inputs: slice name -> digest of its input.
        upstream: digest of the part's input, for the part's own fingerprint.
        work: the slice function.
        named: the settings by name, kept in the part's stamp.
        deciding: the settings that failures are decided by, kept in the stamps of the slices and of the part.
        is_due: whether a fresh slice must run again anyway (retries).
        accept: given all slices' stamps, returns the reason why the part may not enter a release, or None.

    Raises:
        PartFailed: at least one slice failed; the others were done first. The part then has no stamp.
    """
    stamps: dict[str, SliceStamp] = {}
    pending: dict[str, str] = {}
    all_sound = True
    for name, digest in inputs.items():
        expected = fingerprint(settings, digest)
        stamp = workspace.slice_stamp(part, stage, name)
        fresh = stamp is not None and stamp.fingerprint == expected and workspace.table(part, stage, name).exists()
        if stamp is not None and fresh and not is_due(stamp):
            stamps[name] = stamp
        else:
            pending[name] = expected
            all_sound = all_sound and fresh
    reused = len(stamps)
    if not all_sound:  # a part with only due retries may still be released if this run fails or is killed
        workspace.clear_part_stamp(part, stage)
    failures: dict[str, str] = {}
    transient = False
    with logs.context(part=part, stage=stage):
        metrics.slices(stage, "reused", reused)
        _log.info("slices to do", slices=len(pending), reused=reused, workers=engine.workers)
        for name, outcome in map_slices(work, pending, engine):
            if isinstance(outcome, SliceResult):
                stamps[name] = publish_slice(workspace, part, stage, name, pending[name], outcome, deciding)
                log_slice(stage, name, stamps[name], len(stamps), len(inputs))
                metrics.fetched(outcome.seen)
            else:
                failures[name] = describe(outcome)
                transient = transient or isinstance(outcome, OSError | BrokenExecutor)
                metrics.slices(stage, "failed")
                _log.error("slice failed", slice=name, error=failures[name])
    if failures:
        raise PartFailed(part, stage, failures, transient)
    ordered = {name: stamps[name] for name in inputs}
    part_stamp = stamp_part(
        workspace,
        part,
        stage,
        fingerprint(settings, upstream),
        ordered,
        accept(ordered),
        settings=named,
        deciding=deciding,
    )
    return PartResult(part_stamp, ordered, done=len(pending), reused=reused)


def publish_slice(
    workspace: Workspace,
    part: str,
    stage: PartStage,
    name: str,
    expected: str,
    result: SliceResult,
    deciding: Mapping[str, Any] | None = None,
) -> SliceStamp:
    """Publish a slice's table, then its stamp."""
    write_table(workspace.table(part, stage, name), result.table)
    stamp = SliceStamp(
        fingerprint=expected,
        digest=table_digest(result.table),
        rows=result.table.num_rows,
        counts=dict(result.counts),
        reasons=dict(result.reasons),
        numbers=dict(result.numbers),
        next_retry_at=result.next_retry_at,
        deciding=dict(deciding or {}),
    )
    workspace.write_slice_stamp(part, stage, name, stamp)
    return stamp


def log_slice(stage: PartStage, name: str, stamp: SliceStamp, done: int, total: int) -> None:
    """Log a finished slice, with the number of finished slices of the part, and count it in the metrics."""
    metrics.slice_done(stage, stamp.rows, stamp.counts, stamp.reasons, stamp.numbers)
    counts = {what: count for what, count in stamp.counts.items() if count and what != "rows"}
    seconds = stamp.numbers.get("seconds")
    fields: dict[str, Any] = {
        "rows": stamp.rows,
        "seconds": seconds,
        "counts": counts or None,
        "reasons": stamp.reasons or None,
    }
    _log.info("slice done", slice=name, done=done, of=total, **fields)


def stamp_part(
    workspace: Workspace,
    part: str,
    stage: PartStage,
    expected: str,
    slices: Mapping[str, SliceStamp],
    reason: str | None,
    opt_out: str = "",
    settings: Mapping[str, Any] | None = None,
    deciding: Mapping[str, Any] | None = None,
) -> PartStamp:
    """Write the part's stamp from its slices' stamps.

    Args:
        reason: why the part may not enter a release; None: it may.
        settings, deciding: by name.
    """
    retries = [stamp.next_retry_at for stamp in slices.values() if stamp.next_retry_at]
    stamp = PartStamp(
        fingerprint=expected,
        digest=part_digest({name: stamp.digest for name, stamp in slices.items()}),
        slices=tuple(slices),
        rows=sum(stamp.rows for stamp in slices.values()),
        accepted=reason is None,
        reason=reason,
        counts=add_counts(stamp.counts for stamp in slices.values()),
        reasons=add_counts(stamp.reasons for stamp in slices.values()),
        next_retry_at=min(retries, default=None),
        opt_out=opt_out,
        settings=dict(settings or {}),
        deciding=dict(deciding or {}),
    )
    workspace.write_part_stamp(part, stage, stamp)
    return stamp


def map_slices(work: Work, names: Iterable[str], engine: Engine) -> Iterator[tuple[str, SliceResult | BaseException]]:
    """Run `work` over slices; yield each name with its result or its error, in the order in which they finish."""
    names = list(names)
    if engine.backend == "ray":
        yield from _map_on_ray(work, names, engine.workers)
    elif engine.workers == 1 or len(names) <= 1:
        for name in names:
            yield name, attempt(work, name)
    else:
        yield from _map_in_processes(work, names, engine.workers)


def attempt(work: Work, name: str) -> SliceResult | BaseException:
    """Run the work on one slice, and return its error instead of raising it."""
    try:
        with logs.context(slice=name):
            return work(name)
    except Exception as error:  # noqa: BLE001 - the boundary of a slice: whatever went wrong fails this slice alone
        return error


def _map_in_processes(work: Work, names: list[str], workers: int) -> Iterator[tuple[str, SliceResult | BaseException]]:
    """Run in a pool. A worker that dies breaks its pool; the unfinished slices then get a pool of their own each."""
    context = get_context("spawn")
    unfinished: list[str] = []
    with relay.listening() as address:
        options: dict[str, Any] = {"mp_context": context, "initializer": relay.speak_to, "initargs": address}
        with ProcessPoolExecutor(max_workers=min(workers, len(names)), **options) as pool:
            futures = {pool.submit(attempt, work, name): name for name in names}
            for future in as_completed(futures):
                if future.exception() is None:
                    yield futures[future], future.result()
                else:
                    unfinished.append(futures[future])
                    _log.warning("a worker died; the slice is tried again alone", slice=futures[future])
        for name in unfinished:
            with ProcessPoolExecutor(max_workers=1, **options) as pool:
                future = pool.submit(attempt, work, name)
                error = future.exception()
                yield name, future.result() if error is None else error


def _map_on_ray(work: Work, names: list[str], workers: int) -> Iterator[tuple[str, SliceResult | BaseException]]:
    try:
        import ray
    except ImportError:
        raise UserError(
            "engine.backend is `ray`, but ray is not installed. Remedy: pip install 'mmdata[ray]'"
        ) from None
    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False)
    remote = ray.remote(max_retries=1)(_attempt_elsewhere)
    levels, fields = relay.levels(), logs.current()
    waiting: list[str] = list(names)
    running: dict[Any, str] = {}
    while waiting or running:
        while waiting and len(running) < workers:
            name = waiting.pop(0)
            running[remote.remote(work, name, levels, fields)] = name
        (ready, *_), _ = ray.wait(list(running), num_returns=1)
        name = running.pop(ready)
        try:
            outcome, events = ray.get(ready)
        except ray.exceptions.RayError as error:
            yield name, error
            continue
        for event in events:
            relay.tell(event)
        yield name, outcome


def _attempt_elsewhere(
    work: Work, name: str, levels: Mapping[str, int], fields: Mapping[str, Any]
) -> tuple[SliceResult | BaseException, list[dict[str, Any]]]:
    with relay.gathered(levels, fields) as events:
        return attempt(work, name), events


def describe(error: BaseException) -> str:
    """An error in one line: our own errors as they are, others with their type and the line that raised."""
    if isinstance(error, MMDataError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"


def table_digest(table: pa.Table) -> str:
    """SHA-256 over a table's schema and rows, 16 hex digits, without the columns VOLATILE and FILLED_LATER.

    It does not depend on chunking, nor on the bytes in memory under a null, so a table that is read back has the same
    digest.
    """
    sink = pa.BufferOutputStream()
    names = [name for name in table.column_names if name not in VOLATILE | FILLED_LATER]
    combined = table.select(names).combine_chunks()
    combined = combined.take(pa.array(range(len(combined)), pa.int64()))  # the bytes under a null are zero afterwards
    with pa.ipc.new_stream(sink, combined.schema) as writer:
        writer.write_table(combined)
    return hashlib.sha256(memoryview(sink.getvalue())).hexdigest()[:16]
