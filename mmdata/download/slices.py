"""One slice of the media stage: its rows' pictures, videos, sound and texts, into one tar and one table."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import IO, Any

import pyarrow as pa

from mmdata.config import Clips, Corpus, Download, Privacy, Synthesis
from mmdata.download.images import FetchedImage, fetch_image, prepare, with_privacy
from mmdata.download.media_counts import media_counts
from mmdata.download.recordings import Place, Recordings, Spool, Stored, fetch_recordings, is_mended
from mmdata.engine.part_run import SliceResult
from mmdata.errors import UserError
from mmdata.media.synthesis import synthesised
from mmdata.observe import logs
from mmdata.observe.metrics import seen_in
from mmdata.optout.hashes import NOTHING, OptOut
from mmdata.optout.state import REASON
from mmdata.samples import MEDIA, table_of
from mmdata.storage.tables import read_table
from mmdata.urls import host_and_port
from mmdata.web.failures import HOST_FAULTS, FetchError
from mmdata.web.guard import Guard, install
from mmdata.web.hosts import HOST_DOWN_AFTER, HostHealth, fetch_all, fetch_seconds
from mmdata.web.retries import next_retry_at
from mmdata.workspace.layout import Workspace
from mmdata.workspace.media_tar import Earlier, read_earlier, signed, write_tar

_log = logs.logger(__name__)


@dataclass(frozen=True, slots=True)
class MediaSettings:
    """What decides how a slice is fetched and what is stored of it."""

    download: Download
    clips: Clips
    privacy: Privacy
    synthesis: Synthesis
    seed: int
    fetch_from: str | None
    opt_out: OptOut = NOTHING

    @classmethod
    def of(cls, corpus: Corpus, source: str, opt_out: OptOut) -> MediaSettings:
        """Those of a corpus, for the parts of one of its sources."""
        known = next((one.fetch_from for one in corpus.sources if one.name == source), None)
        return cls(corpus.download, corpus.clips, corpus.privacy, corpus.synthesis, corpus.seed, known, opt_out)


def fetch_slice(
    name: str,
    *,
    root: str,
    part_name: str,
    settings: MediaSettings,
    fingerprint: str,
    progress: Callable[[int], None] | None,
) -> SliceResult:
    """Fetch one slice: publishes its tar, and returns its media table.

    A URL that stands in several rows is fetched once. Pictures that several rows share are stored once; a video's clips
    each have their own bytes.

    Args:
        fingerprint: of what decides the stored bytes.
    """
    started, asked_at = time.monotonic(), datetime.now(UTC)
    workspace = Workspace(root)
    rows = read_table(workspace.table(part_name, "rows", name)).to_pylist()
    earlier = _without_pardoned(read_earlier(workspace, part_name, name, fingerprint), settings.opt_out)
    advance = progress or _nowhere
    usable = [row for row in rows if _is_fetchable(row)]
    advance(len(rows) - len(usable))
    pictures = [row for row in usable if row["kind"] == "image"]
    recordings = [row for row in usable if row["kind"] in ("video", "audio")]
    texts = [row for row in usable if row["kind"] == "text"]
    token = fetch_seconds.set([])
    with tempfile.TemporaryFile() as file, earlier.open_tar() as old_tar:
        spool = Spool(file)
        stored = [Stored(_bad_row(row)) for row in rows if not _is_fetchable(row)]
        stored += [Stored(_text(row)) for row in texts]
        advance(len(texts))
        fetched, found = _pictures(pictures, earlier, old_tar, settings, spool, advance)
        stored += found
        more, found = _recordings(recordings, earlier, old_tar, settings, spool, advance)
        stored = [_unless_refused(one, settings.opt_out) for one in (*stored, *found)]
        stored, failed = _spoken(stored, rows, settings, spool)
        places = {f"{one.owner or one.record['uid']}.{ext}": place for one in stored for ext, place in one.members}
        offsets, tar_sha256 = write_tar(workspace.part_dir(part_name) / "media", name, places)
    records = [_addressed(one, offsets) for one in stored]
    since = asked_at.replace(microsecond=0)
    urls = {row["uid"]: row["url"] for row in rows}
    logs.samples(_log, "samples have no media", _without_media(records, urls, since))
    seen = seen_in(records, urls, since, fetch_seconds.get() or [])
    fetch_seconds.reset(token)
    table = signed(table_of(records, MEDIA), fingerprint, tar_sha256)
    return replace(_counted(table, fetched + more, time.monotonic() - started, failed), seen=seen)


def _pictures(
    rows: list[dict[str, Any]],
    earlier: Earlier,
    old_tar: IO[bytes],
    settings: MediaSettings,
    spool: Spool,
    advance: Callable[[int], None],
) -> tuple[int, list[Stored]]:
    """How many URLs were asked, and what became of the rows."""
    by_url: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_url.setdefault(row["url"], []).append(row)
    now, download = datetime.now(UTC), settings.download
    known = {url: record for url, sharers in by_url.items() if (record := earlier.of(sharers)) is not None}
    urls = [url for url in by_url if not _is_settled(known.get(url), now)]
    advance(len(rows) - sum(len(by_url[url]) for url in urls))
    places: dict[str, Place] = {
        url: (old_tar, record["offset"], record["length"])
        for url, record in known.items()
        if record["status"] == "success"
    }
    if urls:
        prepare(download)
        install(Guard(download))
    fetch = partial(_fetch_safely, download=download, privacy=settings.privacy, health=HostHealth(HOST_DOWN_AFTER))
    for url, image in fetch_all(urls, fetch, download.threads, download.per_host):
        attempts = (known[url]["attempts"] if url in known else 0) + image.was_tried
        known[url] = _record(url, image, attempts, download)
        if image.data is not None:
            places[url] = spool.add(image.data)
        advance(len(by_url[url]))
    found = []
    for url, sharers in by_url.items():
        accepting = [row["uid"] for row in sharers if _is_expected(row, known[url]["sha256"])]
        for row in sharers:
            record = _for_row(row, known[url])
            members = (("jpg", places[url]),) if record["status"] == "success" else ()
            found.append(Stored(record, members, min(accepting, default=None)))
    return len(urls), found


def _recordings(
    rows: list[dict[str, Any]],
    earlier: Earlier,
    old_tar: IO[bytes],
    settings: MediaSettings,
    spool: Spool,
    advance: Callable[[int], None],
) -> tuple[int, list[Stored]]:
    """How many rows were fetched for, and what became of them all."""
    now = datetime.now(UTC)
    due: list[dict[str, Any]] = []
    kept: list[dict[str, Any]] = []
    for row in rows:
        record = earlier.records.get(row["uid"])
        settled = _is_settled(record, now) and not is_mended(row, record)
        (kept if settled else due).append(row)
    advance(len(kept))
    own = Recordings(settings.download, settings.clips, settings.privacy, settings.fetch_from, settings.opt_out)
    found: dict[str, Stored] = {}
    if due:
        install(Guard(settings.download))
        found = fetch_recordings(due, earlier.records, own, spool, advance)
    return len(due), [*found.values(), *(_as_before(earlier.records[row["uid"]], old_tar) for row in kept)]


def _as_before(record: dict[str, Any], old_tar: IO[bytes]) -> Stored:
    """A record of an earlier run, and its members where they lie, without sound that was made then."""
    members = [record, *(record["further"] or [])] if record["ext"] else []
    stored = [(one["ext"], (old_tar, one["offset"], one["length"])) for one in members]
    if record["synthetic"] == "audio":
        stored = [one for one in stored if one[0] != "flac"]
        record = {**record, "synthetic": None, "audio_s": None}
    return Stored(record, tuple(stored))


def _spoken(
    stored: list[Stored], rows: list[dict[str, Any]], settings: MediaSettings, spool: Spool
) -> tuple[list[Stored], int]:
    """With the speech that is made for samples without sound, and how many captions could not be spoken."""
    if settings.synthesis.speech <= 0:
        return stored, 0
    by_uid = {row["uid"]: row for row in rows}
    sound = [one.record for one in stored if one.record["status"] == "success" and not one.record.get("audio_s")]
    spoken, failed = synthesised([by_uid[record["uid"]] for record in sound], settings.synthesis, settings.seed)
    found = []
    for one in stored:
        made = spoken.get(one.record["uid"])
        if made is None:
            found.append(one)
            continue
        record = {**one.record, "audio_s": made.seconds, "synthetic": "audio"}
        found.append(Stored(record, (*one.members, ("flac", spool.add(made.flac)))))  # its own picture, too
    return found, len(failed)


def _addressed(stored: Stored, offsets: Mapping[str, int]) -> dict[str, Any]:
    """A row's record, with the places of its members in the tar."""
    owner = stored.owner or stored.record["uid"]
    members = [
        {"ext": ext, "offset": offsets[f"{owner}.{ext}"], "length": length} for ext, (_, _, length) in stored.members
    ]
    first = members[0] if members else dict.fromkeys(("ext", "offset", "length"))
    return {**stored.record, **first, "further": members[1:] or None}


def _text(row: dict[str, Any]) -> dict[str, Any]:
    """Nothing is to be fetched."""
    return {"uid": row["uid"], "status": "success", "attempts": 0}


def _nowhere(rows: int) -> None:
    """Progress that nobody asked for."""


def _is_fetchable(row: Mapping[str, Any]) -> bool:
    return row["problem"] is None and (row["url"] is not None or row["kind"] == "text")


def _is_settled(record: dict[str, Any] | None, now: datetime) -> bool:
    """Whether a URL needs no fetch now: it succeeded, is final, or is not due yet."""
    if record is None:
        return False
    due = record["next_retry_at"]
    return record["status"] == "success" or due is None or due > now


def _fetch_safely(url: str, download: Download, privacy: Privacy, health: HostHealth) -> FetchedImage:
    if health.is_down(url):
        gone = f"{host_and_port(url)} failed {HOST_DOWN_AFTER} times in a row; left alone until the next run"
        return FetchedImage("failed_to_download", failure=FetchError("host_down", gone, may_pass=True))
    try:
        image = with_privacy(fetch_image(url, download), download, privacy)
    except (MemoryError, UserError):
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
        "faces": image.faces,
        "fetched_at": now.replace(microsecond=now.microsecond // 1000 * 1000),
        "etag": image.etag,
    }


def _for_row(row: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    """A URL's record as one row's, held against the hash that the source gave for it."""
    own = {**record, "uid": row["uid"], "further": None, "audio_s": None, "synthetic": None}
    if _is_expected(row, record["sha256"]):
        return own
    gone = dict.fromkeys(("width", "height", "ext", "offset", "length", "next_retry_at", "faces"))
    detail = f"expected sha256 {row['expected_sha256'].lower()}, got {record['sha256']}"
    return {**own, **gone, "status": "failed_to_download", "error": "hash_mismatch", "detail": detail}


def _is_expected(row: Mapping[str, Any], sha256: str | None) -> bool:
    """Whether a body is the one that the source saw (split-view poisoning puts another in its place)."""
    return row["expected_sha256"] is None or sha256 is None or row["expected_sha256"].lower() == sha256


def _bad_row(row: dict[str, Any]) -> dict[str, Any]:
    problem = row["problem"] or "no URL"
    error = REASON if problem == REASON else "bad_row"
    return {"uid": row["uid"], "status": "refused", "error": error, "detail": problem, "attempts": 0}


def _unless_refused(stored: Stored, opt_out: OptOut) -> Stored:
    """Without what was fetched, where that very file is to be left out."""
    sha256 = stored.record.get("sha256")
    if not opt_out.covers_file(sha256):
        return stored
    refused = {"status": "refused", "error": REASON, "detail": REASON, "attempts": 0, "sha256": sha256}
    return Stored({"uid": stored.record["uid"], **refused})


def _without_pardoned(earlier: Earlier, opt_out: OptOut) -> Earlier:
    """Without what was left out for its file, where that is no longer asked for: it is fetched again."""
    records = {
        uid: record
        for uid, record in earlier.records.items()
        if record["error"] != REASON or opt_out.covers_file(record["sha256"])
    }
    return replace(earlier, records=records)


def _without_media(
    records: list[dict[str, Any]], urls: Mapping[str, str | None], since: datetime
) -> Iterator[tuple[str, dict[str, Any]]]:
    """What was asked for in this run and did not come: reason, and uid with host."""
    for record in records:
        fetched_at = record.get("fetched_at")
        if record.get("error") and fetched_at is not None and fetched_at >= since:
            yield record["error"], {"uid": record["uid"], "host": host_and_port(urls[record["uid"]] or "")}


def _counted(table: pa.Table, fetched: int, seconds: float, unspoken: int) -> SliceResult:
    counts, reasons, next_retry_at = media_counts(table)
    if unspoken:
        counts["unspoken"] = unspoken
    sizes = table["bytes"].drop_null().to_pylist()
    numbers = {"fetched": fetched, "seconds": seconds, "bodies": len(sizes), "bytes": sum(sizes)}
    return SliceResult(table, counts, reasons, numbers, next_retry_at)
