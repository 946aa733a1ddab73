"""Fetches the videos and the sound of a slice: each file is fetched and cut once, whatever the number of its clips."""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Any

from mmdata.config import Download
from mmdata.download.media_settings import MediaSettings
from mmdata.download.spool import ByteRange, Medium, SliceWork, Spool, is_settled, record_of_fetch
from mmdata.fingerprint import file_md5
from mmdata.media.container import FileFacts
from mmdata.media.cutting import Span
from mmdata.media.decoder_pool import CutClip, DecoderPool
from mmdata.optout.state import OPT_OUT
from mmdata.web.failures import REFUSALS, FetchError
from mmdata.web.guard import Guard, install
from mmdata.web.hosts import HOST_DOWN_AFTER, HostHealth, fetch_all
from mmdata.web.large_files import FetchedFile, fetch_file
from mmdata.web.video_sites import fetch_from_site, is_site
from mmdata.workspace.media_record import ExpectedHashes, MediaRecord

Row = Mapping[str, Any]


def fetch_recording_rows(rows: list[dict[str, Any]], work: SliceWork) -> tuple[int, list[Medium]]:
    """Fetch and cut the files of some rows of kind `video` or `audio`; earlier results are taken over.

    Returns:
        How many rows were fetched for, and the medium of each row.

    Raises:
        UserError: a package that decoding needs is not installed.
    """
    due: list[dict[str, Any]] = []
    settled: list[MediaRecord] = []
    for row in rows:
        record = work.earlier.records.get(row["uid"])
        if record is None or not is_settled(record) or record.is_mismatch_resolved(ExpectedHashes.of_row(row)):
            due.append(row)
        else:
            settled.append(record)
    work.advance(len(settled))
    fetched = _fetch_due(due, work) if due else []
    return len(due), [*fetched, *(_from_earlier_run(record, work) for record in settled)]


def _from_earlier_run(record: MediaRecord, work: SliceWork) -> Medium:
    """The medium of an earlier run, without synthetic sound: it is made anew if it is still asked for."""
    members = [(member["ext"], work.in_old_tar(member["offset"], member["length"])) for member in record.members]
    if record.synthetic == "audio":
        members = [(ext, data) for ext, data in members if ext != "flac"]
        record = replace(record, synthetic=None, audio_s=None)
    return Medium(record, tuple(members))


def _fetch_due(rows: list[dict[str, Any]], work: SliceWork) -> list[Medium]:
    settings = work.settings
    install(Guard(settings.download))
    rows_by_url: dict[str, list[Row]] = {}
    media: list[Medium] = []
    for row in rows:
        url = settings.file_url(row)
        if url is None:
            media.append(_without_url(row))
            work.advance(1)
        else:
            rows_by_url.setdefault(url, []).append(row)
    clips, download = settings.clips, settings.download
    with DecoderPool(clips.decoders, clips.decode_timeout_s) as pool:
        fetch = partial(
            _fetch_and_cut,
            rows_by_url=rows_by_url,
            settings=settings,
            spool=work.spool,
            pool=pool,
            health=HostHealth(HOST_DOWN_AFTER, work.pauses),
        )
        for url, (file, stored_clips) in fetch_all(list(rows_by_url), fetch, clips.threads, download.per_host):
            for sharer, clip in zip(rows_by_url[url], stored_clips, strict=True):
                earlier = work.earlier.records.get(sharer["uid"])
                record = _record(sharer, url, file, clip, earlier.attempts if earlier else 0, download)
                media.append(Medium(record, clip.members if record.status == "success" else ()))
            work.advance(len(rows_by_url[url]))
    return media


@dataclass(frozen=True, slots=True)
class _StoredClip:
    """A clip whose bytes are in the spool."""

    clip: CutClip
    members: tuple[tuple[str, ByteRange], ...] = ()
    facts: FileFacts | None = None


def _fetch_and_cut(
    url: str,
    rows_by_url: Mapping[str, list[Row]],
    settings: MediaSettings,
    spool: Spool,
    pool: DecoderPool,
    health: HostHealth,
) -> tuple[FetchedFile, list[_StoredClip]]:
    """Fetch one file and cut the clips of all its rows, in the order of the rows."""
    rows = rows_by_url[url]
    with tempfile.TemporaryDirectory(prefix="mmdata-") as folder:
        target = Path(folder) / "file"
        file = _fetch(url, target, settings, health)
        if file.failure is not None:
            return file, [_StoredClip(CutClip())] * len(rows)
        if any(ExpectedHashes.of_row(row).md5 for row in rows):
            file = replace(file, md5=file_md5(target))
        spans = [Span(row["start_s"], row["end_s"]) for row in rows]
        stored_clips = []
        with (
            pool.decode(target, rows[0]["kind"], spans, settings.clip_options) as decoded,
            decoded.data.open("rb") if decoded.data.exists() else io.BytesIO() as data,
        ):
            for clip in decoded.clips:
                members = tuple((m.ext, spool.add(_read(data, m.offset, m.length))) for m in clip.members)
                stored_clips.append(_StoredClip(clip, members, decoded.facts))
        return file, stored_clips


def _fetch(url: str, target: Path, settings: MediaSettings, health: HostHealth) -> FetchedFile:
    if (host_down := health.down_error(url)) is not None:
        return FetchedFile(host_down)
    fetch = fetch_from_site if is_site(url) else fetch_file
    try:
        file = fetch(url, target, settings.download, settings.clips)
    except BaseException as error:
        health.record(url, FetchError("unexpected", str(error)))  # other threads may wait for the result
        raise
    health.record(url, file.failure)
    if settings.opt_out.covers_file(file.sha256):
        return replace(file, failure=FetchError(OPT_OUT, "the file's owner has opted out"))
    return file


def _without_url(row: Row) -> Medium:
    detail = "source.fetch_from needs a video_id, and the row has none that fits into a URL"
    return Medium(MediaRecord(row["uid"], "refused", error="bad_row", detail=detail))


def _record(
    row: Row, url: str, file: FetchedFile, stored_clip: _StoredClip, attempts: int, download: Download
) -> MediaRecord:
    """The record of a row whose file was fetched; its members are not yet known."""
    record, clip = record_of_fetch(row["uid"], url, file, attempts, download), stored_clip.clip
    if file.failure is not None and file.failure.error == OPT_OUT:
        return record  # with the file's own hash, by which opt-outs are looked up
    expected = ExpectedHashes.of_row(row)
    if file.failure is None and not expected.allows(file.sha256, file.md5):
        return record.as_hash_mismatch(expected, file.sha256, file.md5)
    record = replace(record, sha256=clip_sha256(file.sha256, row["start_s"], row["end_s"]))
    if file.failure is not None:
        return record
    if (facts := stored_clip.facts) is not None:
        record = replace(record, original_width=facts.width, original_height=facts.height, fps=facts.fps)
    if clip.problem is not None:
        status = "refused" if clip.problem in REFUSALS else "failed_to_resize"
        return replace(record, status=status, error=clip.problem, detail=clip.detail)
    return replace(
        record,
        width=clip.width,
        height=clip.height,
        duration_s=clip.duration_s,
        frame_times_s=list(clip.times_s) or None,
        audio_s=clip.audio_s,
        faces=clip.faces,
        detail="speech was found in the sound, which was not kept" if clip.voice else None,
    )


def clip_sha256(file_sha256: str | None, start_s: float | None, end_s: float | None) -> str | None:
    """Identifies a clip's source bytes: the file's SHA-256, for a part of a file hashed with the part's times."""
    if file_sha256 is None or start_s is None or end_s is None:
        return file_sha256
    return hashlib.sha256(f"{file_sha256} {start_s:.3f} {end_s:.3f}".encode()).hexdigest()


def _read(file: IO[bytes], offset: int, length: int) -> bytes:
    file.seek(offset)
    return file.read(length)
