"""Metrics: what is counted, by how many labels, and how it is exposed."""

from __future__ import annotations

import sys
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pytest

from mmdata.config import Engine, Observe
from mmdata.engine.part_run import SliceResult, run_part_stage
from mmdata.errors import PartFailed
from mmdata.observe import metrics
from mmdata.stage import StageReport
from mmdata.web.hosts import fetch_all, fetch_seconds
from mmdata.workspace.layout import Workspace
from tests.support.prometheus import series

prometheus_client = pytest.importorskip("prometheus_client")


@pytest.fixture
def textfile(tmp_path: Path) -> Iterator[Path]:
    """Metrics are on, in this file, until the test ends."""
    path = tmp_path / "mmdata.prom"
    assert metrics.start(Observe(metrics_textfile=str(path))) is not None
    yield path
    metrics.stop()


def numbers(path: Path) -> dict[str, float]:
    """The series of a text file, as they stand after the last write."""
    metrics.stop()
    return series(path.read_text())


def work(name: str, broken: str = "") -> SliceResult:
    """A slice's work that has fetched something."""
    if name == broken:
        raise OSError("no space")
    seen = metrics.Fetches([0.2, 0.3], 1_000)
    seen.urls.update({("a.example", "success"): 3, ("b.example", "failed"): 1})
    counts = {"success": 3, "failed_to_download": 1}
    table = pa.table({"uid": [f"{name}{n}" for n in range(4)]})
    return SliceResult(table, counts, {"dns": 1}, {"seconds": 2.0}, seen=seen)


def run(folder: Path, workers: int = 1, broken: str = "") -> None:
    run_part_stage(
        Workspace(str(folder / "workspace")),
        "web-000000",
        "media",
        settings="s",
        inputs={"0000": "a", "0001": "b", "0002": "c"},
        upstream="u",
        work=partial(work, broken=broken),
        engine=Engine(workers=workers),
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_slices_count_their_rows_reasons_fetches_and_hosts(tmp_path: Path, textfile: Path, workers: int) -> None:
    with pytest.raises(PartFailed):
        run(tmp_path, workers, broken="0002")
    run(tmp_path, workers)
    told = numbers(textfile)
    assert told['mmdata_slices_total{outcome="done",stage="media"}'] == 3
    assert told['mmdata_slices_total{outcome="failed",stage="media"}'] == 1
    assert told['mmdata_slices_total{outcome="reused",stage="media"}'] == 2
    assert told['mmdata_rows_total{stage="media",status="success"}'] == 9
    assert told['mmdata_rows_total{stage="media",status="failed_to_download"}'] == 3
    assert told['mmdata_row_reasons_total{reason="dns",stage="media"}'] == 3
    assert told['mmdata_urls_total{host="a.example",outcome="success"}'] == 9
    assert told["mmdata_fetched_bytes_total"] == 3_000
    assert told["mmdata_fetch_seconds_count"] == 6
    assert told['mmdata_slice_seconds_bucket{le="5.0",stage="media"}'] == 3


def test_a_stage_and_its_release_are_told(textfile: Path) -> None:
    metrics.stage_failed("media")
    metrics.stage_done(StageReport("shards", counts={"shards_written": 2, "shards_reused": 5}))
    metrics.stage_done(StageReport("release", counts={"samples": 70, "bytes": 900}))
    told = numbers(textfile)
    assert told['mmdata_stages_total{outcome="failed",stage="media"}'] == 1
    assert told['mmdata_shards_total{outcome="reused"}'] == 5
    assert told["mmdata_release_samples"] == 70
    assert told["mmdata_release_timestamp_seconds"] > 1.7e9


def test_the_web_does_not_decide_how_many_series_there_are(textfile: Path) -> None:
    for part in range(100):
        seen = metrics.Fetches()
        seen.urls.update({(f"h{part}-{n}.example", "success"): 100 - n for n in range(30)})
        seen.keep_top_hosts()
        assert len(seen.urls) == metrics.MAX_HOSTS_PER_SLICE + 1
        metrics.fetched(seen)
    told = {name: value for name, value in numbers(textfile).items() if name.startswith("mmdata_urls_total")}
    assert len(told) <= metrics.MAX_HOST_LABELS + 1
    assert sum(told.values()) == 100 * sum(100 - n for n in range(30))


def test_a_url_of_several_rows_counts_once_and_an_earlier_fetch_not_at_all() -> None:
    now = datetime.now(UTC)
    records = [{"uid": str(n), "fetched_at": now, "bytes": 10, "error": None} for n in range(3)]
    records.append({"uid": "3", "fetched_at": now - timedelta(days=1), "bytes": 10, "error": None})
    urls: dict[str, str | None] = dict.fromkeys("012", "http://a.example/1") | {"3": "http://a.example/2"}
    seen = metrics.seen_in(records, urls, now, [])
    assert (dict(seen.urls), seen.bytes) == ({("a.example", "success"): 1}, 10)


def test_fetching_threads_time_each_fetch_for_the_slice_that_asks() -> None:
    seconds: list[float] = []
    token = fetch_seconds.set(seconds)
    list(fetch_all([f"http://a.example/{n}" for n in range(5)], len, threads=2, per_host=2))
    fetch_seconds.reset(token)
    assert len(seconds) == 5


def test_http_is_answered_on_loopback(unused_port: int) -> None:
    metrics.start(Observe(metrics_port=unused_port))
    metrics.waited(3)
    with urllib.request.urlopen(f"http://127.0.0.1:{unused_port}/metrics") as answer:
        text = answer.read().decode()
    metrics.stop()
    assert series(text)["mmdata_lease_wait_seconds_total"] == 3
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{unused_port}/metrics")


def test_a_port_that_is_taken_ends_no_build(unused_port: int, caplog: pytest.LogCaptureFixture) -> None:
    with ThreadingHTTPServer(("127.0.0.1", unused_port), BaseHTTPRequestHandler):
        metrics.start(Observe(metrics_port=unused_port))
        metrics.waited(1)
        metrics.stop()
    assert "metrics have no port" in caplog.text


def test_without_the_library_a_build_goes_on(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    assert metrics.start(Observe(metrics_textfile="/nowhere/x.prom")) is None
    assert "mmdata[metrics]" in caplog.text
    metrics.waited(1)
    metrics.stop()


def test_nothing_is_counted_where_nobody_asks(tmp_path: Path) -> None:
    assert metrics.start(Observe()) is None
    run(tmp_path)
    assert not metrics.is_counting()
