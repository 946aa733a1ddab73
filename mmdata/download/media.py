"""The media stage: fetch what a part's rows point at, into one tar and one table a slice."""

from __future__ import annotations

import io
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pyarrow as pa

from mmdata.config import Corpus, Download
from mmdata.download.archive import read_earlier, remove_unaddressed, signed, write_tar
from mmdata.download.failures import HOST_FAULTS, FetchError
from mmdata.download.guard import Guard, install
from mmdata.download.hosts import HostHealth, fetch_all, host_of
from mmdata.download.images import FetchedImage, fetch_image, prepare
from mmdata.download.ledger import next_retry_at
from mmdata.engine import SliceResult, run_part_stage
from mmdata.errors import DataError
from mmdata.plan import is_due, media_refusal, stage_settings
from mmdata.samples import MEDIA, table_of
from mmdata.stage import Progress, StageReport, add_counts, silent
from mmdata.tables import read_table
from mmdata.workspace import SliceStamp, Workspace

HOST_DOWN_AFTER = 32
"""Fetches of one host that fail for its own sake, in a row, before the rest of a slice leaves it alone."""


def fetch_part(corpus: Corpus, workspace: Workspace, part_name: str, progress: Progress = silent) -> StageReport:
    """Fetch a part's media: what is missing, and the failures whose retry is due. Successes are never fetched again.

    Raises:
        DataError: the part's rows are not read yet.
        PartFailed: a slice failed as a whole (a full disk, a corrupt table); its rows' own failures never raise.
    """
    part = workspace.part(part_name)
    rows = workspace.part_stamp(part_name, "rows")
    if rows is None:
        raise DataError(f"part {part_name} has no rows yet. Remedy: materialise source_rows for {part_name} first.")
    inputs = {name: _slice_digest(workspace, part_name, name) for name in rows.slices}
    settings = stage_settings(corpus, part, "media")
    remove_unaddressed(workspace, part_name, inputs)
    work = partial(
        fetch_slice,
        root=str(workspace.root),
        part_name=part_name,
        download=corpus.download,
        settings=settings,
        progress=_Share(progress, rows.rows) if corpus.engine.in_this_process else None,
    )
    result = run_part_stage(
        workspace,
        part_name,
        "media",
        settings=settings,
        inputs=inputs,
        upstream=rows.digest,
        work=work,
        engine=corpus.engine,
        is_due=lambda stamp: is_due(stamp.next_retry_at),
        accept=partial(_refusal, least=corpus.download.min_success_share),
    )
    progress("media", rows.rows, rows.rows)
    return StageReport(
        "media",
        part_name,
        counts=result.stamp.counts,
        reasons=result.stamp.reasons,
        numbers=_numbers(result.stamp.counts, result.slices.values()),
        tables={"failures by host": _failures_by_host(workspace, part_name, result.stamp.slices)},
        paths={"media": str(workspace.part_dir(part_name) / "media")},
        slices_done=result.done,
        slices_reused=result.reused,
    )


def fetch_slice(
    name: str, *, root: str, part_name: str, download: Download, settings: str, progress: Callable[[int], None] | None
) -> SliceResult:
    """Fetch one slice: publishes its tar, and returns its media table.

    A URL that stands in several rows is fetched once, and all of them address the same bytes.
    """
    started = time.monotonic()
    workspace = Workspace(root)
    rows = read_table(workspace.table(part_name, "rows", name)).to_pylist()
    earlier = read_earlier(workspace, part_name, name, settings)
    by_url: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if _is_fetchable(row):
            by_url.setdefault(row["url"], []).append(row)
    now = datetime.now(UTC)
    known = {url: record for url, sharers in by_url.items() if (record := earlier.of(sharers)) is not None}
    urls = [url for url in by_url if not _is_settled(known.get(url), now)]
    if progress is not None:
        progress(len(rows) - sum(len(by_url[url]) for url in urls))
    with tempfile.TemporaryFile() as spool, earlier.open_tar() as old_tar:
        places = {
            url: (old_tar, record["offset"], record["length"])
            for url, record in known.items()
            if record["status"] == "success"
        }
        if urls:
            prepare(download)
            install(Guard(download))
        fetch = partial(_fetch_safely, download=download, health=HostHealth(HOST_DOWN_AFTER))
        for url, image in fetch_all(urls, fetch, download.threads, download.per_host):
            attempts = (known[url]["attempts"] if url in known else 0) + image.was_tried
            known[url] = _record(url, image, attempts, download)
            if image.data is not None:
                places[url] = (spool, spool.seek(0, io.SEEK_END), len(image.data))
                spool.write(image.data)
            if progress is not None:
                progress(len(by_url[url]))
        accepting = {
            url: [row["uid"] for row in by_url[url] if _is_expected(row, known[url]["sha256"])] for url in places
        }
        owners = {url: min(uids) for url, uids in accepting.items() if uids}
        offsets, tar_sha256 = write_tar(workspace.part_dir(part_name) / "media", name, owners, places)
    records = [_bad_row(row) for row in rows if not _is_fetchable(row)]
    for url, sharers in by_url.items():
        records += [_for_row(row, known[url], offsets.get(url)) for row in sharers]
    table = signed(table_of(records, MEDIA), settings, tar_sha256)
    return _counted(table, fetched=len(urls), seconds=time.monotonic() - started)


def _is_fetchable(row: Mapping[str, Any]) -> bool:
    return row["problem"] is None and row["url"] is not None


def _is_settled(record: dict[str, Any] | None, now: datetime) -> bool:
    """Whether a URL needs no fetch now: it succeeded, is final, or is not due yet."""
    if record is None:
        return False
    due = record["next_retry_at"]
    return record["status"] == "success" or due is None or due > now


def _fetch_safely(url: str, download: Download, health: HostHealth) -> FetchedImage:
    if health.is_down(url):
        gone = f"{host_of(url)} failed {HOST_DOWN_AFTER} times in a row; left alone until the next run"
        return FetchedImage("failed_to_download", failure=FetchError("host_down", gone, may_pass=True))
    try:
        image = fetch_image(url, download)
    except MemoryError:
        raise  # the slice's trouble, not the URL's
    except Exception as error:  # noqa: BLE001 - one URL's surprise is one row's reason, with its type in the detail
        surprise = FetchError("unexpected", f"{type(error).__name__}: {error}", may_pass=True)
        image = FetchedImage("failed_to_download", failure=surprise)
    health.note(url, is_host_fault=image.failure is not None and image.failure.error in HOST_FAULTS)
    return image


def _record(url: str, image: FetchedImage, attempts: int, download: Download) -> dict[str, Any]:
    """The media record of a fetch, but for uid and offset."""
    failure = image.failure
    now = datetime.now(UTC)
    width, height = image.size or (None, None)
    original_width, original_height = image.original_size or (None, None)
    return {
        "status": image.status,
        "error": failure.error if failure else None,
        "detail": failure.detail if failure else None,
        "attempts": attempts,
        "next_retry_at": next_retry_at(url, failure, attempts, download, now) if failure else None,
        "sha256": image.sha256,
        "bytes": image.size_bytes,
        "mime": image.mime,
        "original_width": original_width,
        "original_height": original_height,
        "width": width,
        "height": height,
        "ext": "jpg" if image.data is not None else None,
        "length": len(image.data) if image.data is not None else None,
        "fetched_at": now.replace(microsecond=now.microsecond // 1000 * 1000),
        "etag": image.etag,
    }


def _for_row(row: dict[str, Any], record: dict[str, Any], offset: int | None) -> dict[str, Any]:
    """A URL's record as one row's: addressed, and held against the hash that the source gave for it."""
    own = {**record, "uid": row["uid"], "offset": offset}
    if _is_expected(row, record["sha256"]):
        return own
    gone = dict.fromkeys(("width", "height", "ext", "offset", "length", "next_retry_at"))
    detail = f"expected sha256 {row['expected_sha256'].lower()}, got {record['sha256']}"
    return {**own, **gone, "status": "failed_to_download", "error": "hash_mismatch", "detail": detail}


def _is_expected(row: Mapping[str, Any], sha256: str | None) -> bool:
    """Whether a body is the one that the source saw (split-view poisoning puts another in its place)."""
    return row["expected_sha256"] is None or sha256 is None or row["expected_sha256"].lower() == sha256


def _bad_row(row: dict[str, Any]) -> dict[str, Any]:
    problem = row["problem"] or "no URL"
    return {"uid": row["uid"], "status": "refused", "error": "bad_row", "detail": problem, "attempts": 0}


def _counted(table: pa.Table, fetched: int, seconds: float) -> SliceResult:
    statuses, errors = Counter(table["status"].to_pylist()), Counter(table["error"].drop_null().to_pylist())
    counts = {"rows": table.num_rows, "fetchable": table.num_rows - errors["bad_row"], **statuses}
    retries = [due for due in table["next_retry_at"].to_pylist() if due is not None]
    earliest = min(retries).isoformat() if retries else None
    sizes = table["bytes"].drop_null().to_pylist()
    numbers = {"fetched": fetched, "seconds": seconds, "bodies": len(sizes), "bytes": sum(sizes)}
    return SliceResult(table, counts, errors, numbers, earliest)


def _numbers(counts: Mapping[str, int], slices: Iterable[SliceStamp]) -> dict[str, float]:
    """The part's figures; speed is that of each slice's latest run, by one worker."""
    fetchable, total = counts.get("fetchable", 0), Counter[str]()
    for stamp in slices:
        total.update(stamp.numbers)
    return {
        "success_share": counts.get("success", 0) / fetchable if fetchable else 1.0,
        "mean_bytes": total["bytes"] / max(total["bodies"], 1),
        "urls_per_s": total["fetched"] / max(total["seconds"], 1e-9),
    }


def _refusal(slices: Mapping[str, SliceStamp], least: float) -> str | None:
    return media_refusal(add_counts(stamp.counts for stamp in slices.values()), least)


def _slice_digest(workspace: Workspace, part_name: str, name: str) -> str:
    stamp = workspace.slice_stamp(part_name, "rows", name)
    if stamp is None:
        raise DataError(f"part {part_name}: slice {name} of rows has no stamp. Remedy: materialise source_rows again.")
    return stamp.digest


def _failures_by_host(workspace: Workspace, part_name: str, slices: tuple[str, ...]) -> list[dict[str, Any]]:
    """The ten hosts with the most failures: host, error class, count."""
    counted: Counter[tuple[str, str]] = Counter()
    for name in slices:
        urls = read_table(workspace.table(part_name, "rows", name), ["uid", "url"])
        errors = read_table(workspace.table(part_name, "media", name), ["uid", "error"])
        joined = urls.join(errors, "uid").select(["url", "error"])
        for url, error in zip(joined["url"].to_pylist(), joined["error"].to_pylist(), strict=True):
            if error is not None and error != "bad_row":
                counted[host_of(url), error] += 1
    top = sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:10]
    return [{"host": host, "error": error, "rows": count} for (host, error), count in top]


class _Share:
    """Adds up what the slices report into the part's progress."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def __call__(self, count: int) -> None:
        self._done += count
        self._progress("media", min(self._done, self._total), self._total)
