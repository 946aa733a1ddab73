"""Metrics for Prometheus: counters in memory, which cost nothing unless a port or a file is configured.

Needs the extra `metrics`. The process that starts the workers counts everything, from the results of slices.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Literal

from upath import UPath

from mmdata.config import Observe
from mmdata.observe import logs
from mmdata.stage import StageReport
from mmdata.storage.atomic import publish_bytes
from mmdata.urls import host_and_port

_log = logs.logger(__name__)

ABSENT = "no metrics: prometheus_client is not installed. Remedy: pip install 'mmdata[metrics]'"
OTHER = "other"
MAX_HOST_LABELS = 50
"""Hosts with a label of their own per process; the others are counted as `other`."""

MAX_HOSTS_PER_SLICE = 10
WRITE_EVERY_S = 10.0
LOOPBACK = "127.0.0.1"

SLICE_BUCKETS = (1, 5, 15, 60, 180, 600, 1800, 3600, 7200)
FETCH_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
STATUSES = {
    "rows": ("usable", "bad"),
    "media": ("success", "failed_to_download", "failed_to_resize", "refused", "pending"),
    "features": ("scored",),
}


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: its kind, its labels, and what it says."""

    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()


METRICS: Mapping[str, Metric] = {
    "mmdata_rows_total": Metric("counter", ("stage", "status"), "Rows of finished slices, by status."),
    "mmdata_row_reasons_total": Metric("counter", ("stage", "reason"), "Rows that were refused or failed, by reason."),
    "mmdata_slices_total": Metric("counter", ("stage", "outcome"), "Slices: done, failed or reused."),
    "mmdata_slice_seconds": Metric("histogram", ("stage",), "Seconds of work for a slice.", SLICE_BUCKETS),
    "mmdata_urls_total": Metric(
        "counter", ("host", "outcome"), "URLs requested; hosts beyond the first 50 are `other`."
    ),
    "mmdata_fetched_bytes_total": Metric("counter", (), "Bytes of fetched bodies."),
    "mmdata_fetch_seconds": Metric(
        "histogram", (), "Seconds from the request of a URL to its stored media.", FETCH_BUCKETS
    ),
    "mmdata_pictures_total": Metric("counter", (), "Pictures that were scored."),
    "mmdata_scorer_pictures_per_second": Metric("gauge", (), "Scoring speed of the latest slice."),
    "mmdata_paused_hosts": Metric("gauge", (), "Hosts that blocked us and are left alone."),
    "mmdata_lease_wait_seconds_total": Metric("counter", (), "Seconds of waiting for other builds."),
    "mmdata_stages_total": Metric("counter", ("stage", "outcome"), "Stage runs: done or failed."),
    "mmdata_shards_total": Metric("counter", ("outcome",), "Shards of releases: written or reused."),
    "mmdata_release_samples": Metric("gauge", (), "Samples of the latest published release."),
    "mmdata_release_bytes": Metric("gauge", (), "Bytes of the shards of that release."),
    "mmdata_release_timestamp_seconds": Metric("gauge", (), "Unix time of the latest build that ended with a release."),
}


@dataclass(slots=True)
class Fetches:
    """Figures of the fetching of a slice; picklable, because a worker returns it.

    Args:
        seconds: of each fetch.
        bytes: of all bodies.
        urls: (host, `success` or `failed`) -> number of URLs.
    """

    seconds: list[float] = field(default_factory=list)
    bytes: int = 0
    urls: Counter[tuple[str, str]] = field(default_factory=Counter)

    def keep_top_hosts(self) -> None:
        """Keep the names of the hosts with the most URLs, and call the rest `other`."""
        by_host: Counter[str] = Counter()
        for (host, _), count in self.urls.items():
            by_host[host] += count
        top = sorted(by_host, key=lambda host: (-by_host[host], host))[:MAX_HOSTS_PER_SLICE]
        kept: Counter[tuple[str, str]] = Counter()
        for (host, outcome), count in self.urls.items():
            kept[host if host in top else OTHER, outcome] += count
        self.urls = kept


class Meter:
    """The metrics of this process, or of all processes that share `PROMETHEUS_MULTIPROC_DIR`."""

    def __init__(self) -> None:
        import prometheus_client

        self.registry = prometheus_client.CollectorRegistry()
        self._metrics: dict[str, Any] = {}
        self._hosts: set[str] = set()
        self._textfile: UPath | None = None
        self._server: Any = None
        self._written_at = 0.0
        self._lock = threading.Lock()
        kinds = {
            "counter": prometheus_client.Counter,
            "gauge": partial(prometheus_client.Gauge, multiprocess_mode="mostrecent"),
        }
        for name, metric in METRICS.items():
            make = kinds.get(metric.kind) or partial(prometheus_client.Histogram, buckets=metric.buckets)
            self._metrics[name] = make(name, metric.help, metric.labels, registry=self.registry)

    def of(self, name: str, **labels: str) -> Any:
        """A metric, or its child with these labels."""
        return self._metrics[name].labels(**labels) if labels else self._metrics[name]

    def host(self, name: str) -> str:
        """The label of a host: its name for the first hosts, `other` for the rest, so that the series are bounded."""
        if name not in self._hosts and len(self._hosts) >= MAX_HOST_LABELS:
            return OTHER
        self._hosts.add(name)
        return name

    def write(self, at_once: bool = False) -> None:
        """Write the text file, unless it was written just now."""
        with self._lock:
            if self._textfile is None or not (at_once or time.monotonic() - self._written_at > WRITE_EVERY_S):
                return
            self._written_at = time.monotonic()
            from prometheus_client import generate_latest

            try:
                publish_bytes(self._textfile, generate_latest(self.registry))
            except OSError as error:  # the work continues without metrics
                _log.warning("metrics could not be written", path=self._textfile, error=error)

    def expose(self, port: int | None, textfile: str | None) -> None:
        """Answer HTTP on loopback, write a text file, or both."""
        if port is not None:
            from prometheus_client import start_http_server

            try:
                self._server, _ = start_http_server(port, addr=LOOPBACK, registry=self.registry)
            except OSError as error:
                _log.warning("metrics have no port", port=port, error=error)
        if textfile is not None:
            self._textfile = UPath(textfile)
            self.write(at_once=True)

    def close(self) -> None:
        """Write the text file a last time, and close the port."""
        self.write(at_once=True)
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()


_meter: Meter | None = None


def start(settings: Observe) -> Meter | None:
    """Count from now on and expose the metrics; None if no settings ask for it, or if the package is missing."""
    global _meter  # noqa: PLW0603 - one process has one set of metrics
    if settings.metrics_port is None and settings.metrics_textfile is None:
        return None
    if _meter is None:
        try:
            _meter = Meter()
        except ImportError:
            _log.warning(ABSENT)
            return None
    _meter.expose(settings.metrics_port, settings.metrics_textfile)
    return _meter


def count() -> None:
    """Count from now on; another process exposes the metrics."""
    global _meter  # noqa: PLW0603
    _meter = Meter()


def is_counting() -> bool:
    """Whether this process counts."""
    return _meter is not None


def stop() -> None:
    """Stop counting, and write the text file a last time."""
    global _meter  # noqa: PLW0603
    if _meter is not None:
        _meter.close()
    _meter = None


def slice_done(stage: str, rows: int, counts: Mapping[str, int], reasons: Mapping[str, int], numbers: Any) -> None:
    """Count a finished slice, by the values of its stamp."""
    if _meter is None:
        return
    _meter.of("mmdata_slices_total", stage=stage, outcome="done").inc()
    if seconds := numbers.get("seconds"):
        _meter.of("mmdata_slice_seconds", stage=stage).observe(seconds)
    named = {status: counts.get(status, 0) for status in STATUSES.get(stage, ())}
    for status, count in {**named, OTHER: rows - sum(named.values())}.items():
        if count > 0:
            _meter.of("mmdata_rows_total", stage=stage, status=status).inc(count)
    for reason, count in reasons.items():
        _meter.of("mmdata_row_reasons_total", stage=stage, reason=reason).inc(count)
    if stage == "features" and counts.get("pictures") and seconds:
        _meter.of("mmdata_pictures_total").inc(counts["pictures"])
        _meter.of("mmdata_scorer_pictures_per_second").set(counts["pictures"] / seconds)
    _meter.write()


def slices(stage: str, outcome: str, count: int = 1) -> None:
    """Count slices that failed or were reused."""
    if _meter is not None and count:
        _meter.of("mmdata_slices_total", stage=stage, outcome=outcome).inc(count)


def fetched(seen: Fetches | None) -> None:
    """Count the fetches of a slice."""
    if _meter is None or seen is None:
        return
    _meter.of("mmdata_fetched_bytes_total").inc(seen.bytes)
    for (host, outcome), count in seen.urls.items():
        _meter.of("mmdata_urls_total", host=_meter.host(host), outcome=outcome).inc(count)
    latency = _meter.of("mmdata_fetch_seconds")
    for seconds in seen.seconds:
        latency.observe(seconds)


def paused_hosts(count: int) -> None:
    """Set how many hosts are left alone."""
    if _meter is not None:
        _meter.of("mmdata_paused_hosts").set(count)


def waited(seconds: float) -> None:
    """Count the time of waiting for a lease."""
    if _meter is not None:
        _meter.of("mmdata_lease_wait_seconds_total").inc(seconds)


def stage_done(report: StageReport) -> None:
    """Count a finished stage, by its report."""
    if _meter is None:
        return
    _meter.of("mmdata_stages_total", stage=report.stage, outcome="done").inc()
    if report.stage == "shards":
        for outcome in ("written", "reused"):
            _meter.of("mmdata_shards_total", outcome=outcome).inc(report.counts.get(f"shards_{outcome}", 0))
    if report.stage == "release":
        _meter.of("mmdata_release_samples").set(report.counts.get("samples", 0))
        _meter.of("mmdata_release_bytes").set(report.counts.get("bytes", 0))
        _meter.of("mmdata_release_timestamp_seconds").set(time.time())
    _meter.write(at_once=report.part is None)


def stage_failed(stage: str) -> None:
    """Count a stage that raised an error."""
    if _meter is not None:
        _meter.of("mmdata_stages_total", stage=stage, outcome="failed").inc()
        _meter.write(at_once=True)


def seen_in(
    records: Iterable[Mapping[str, Any]], urls: Mapping[str, str | None], since: datetime, seconds: list[float]
) -> Fetches:
    """The figures of the fetching of a slice.

    Args:
        records: rows of the media table; those that were fetched at `since` or later count.
        urls: uid -> URL; a URL that several rows share counts once.
        seconds: of each fetch.
    """
    seen, counted = Fetches(seconds), set()
    for record in records:
        at, url = record.get("fetched_at"), urls.get(record["uid"])
        if at is not None and at >= since and url and url not in counted:
            counted.add(url)
            seen.urls[host_and_port(url), "failed" if record.get("error") else "success"] += 1
            seen.bytes += record.get("bytes") or 0
    seen.keep_top_hosts()
    return seen
