"""Fetches one slice of a part: its pictures, videos, sound and texts, into one tar and one media table."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from mmdata.documents import DOCUMENT, DOCUMENT_MEDIA
from mmdata.download.document_pictures import fetch_document_rows
from mmdata.download.image_rows import fetch_image_rows
from mmdata.download.media_counts import media_counts
from mmdata.download.media_settings import MediaSettings
from mmdata.download.recordings import fetch_recording_rows
from mmdata.download.spool import Medium, SliceWork, Spool
from mmdata.engine.part_run import SliceResult
from mmdata.media.synthesis import speak_captions
from mmdata.observe import logs
from mmdata.observe.metrics import seen_in
from mmdata.optout.hashes import OptOut
from mmdata.optout.state import OPT_OUT
from mmdata.samples import MEDIA, table_of
from mmdata.sources.source_rules import is_rule, rule_reasons
from mmdata.storage.tables import read_table
from mmdata.urls import host_and_port
from mmdata.web.host_pauses import HostPauses
from mmdata.web.hosts import fetch_seconds
from mmdata.workspace.layout import Workspace
from mmdata.workspace.media_record import MediaRecord, Member
from mmdata.workspace.media_tar import Earlier, read_earlier, signed, write_tar

_log = logs.logger(__name__)

WITHOUT_URL = ("text", DOCUMENT)
"""Kinds whose samples may have no URL; that of a document is the page that it comes from."""


def fetch_slice(
    name: str,
    *,
    root: str,
    part_name: str,
    settings: MediaSettings,
    fingerprint: str,
    progress: Callable[[int], None] | None,
) -> SliceResult:
    """Fetch one slice: publish its tar and return its media table.

    A URL in several rows is fetched once. A picture that several rows share is stored once; each clip of a video has
    bytes of its own.

    Args:
        root: of the workspace.
        fingerprint: of the settings that decide the stored bytes.
        progress: is called with the number of rows that are done; None: nobody listens.
    """
    started, started_at = time.monotonic(), datetime.now(UTC)
    workspace = Workspace(root)
    rows = read_table(workspace.table(part_name, "rows", name)).to_pylist()
    earlier = _valid_earlier(workspace, part_name, name, fingerprint, settings)
    held_back = rule_reasons(rows, settings.rules)
    token = fetch_seconds.set([])
    with tempfile.TemporaryFile() as file, earlier.open_tar() as old_tar:
        pauses = HostPauses(workspace, settings.download.host_pause_s)
        work = SliceWork(settings, earlier, old_tar, Spool(file), pauses, progress or _ignore_progress)
        fetched, media = _fetch_rows(rows, work, held_back)
        media = [_refused_if_opted_out(medium, settings.opt_out) for medium in media]
        media = [_with_rule(medium, held_back.get(medium.record.uid)) for medium in media]
        media, unspoken = _with_speech(media, rows, work)
        members = {medium.member_name(ext): data for medium in media for ext, data in medium.members}
        offsets, tar_sha256 = write_tar(workspace.part_dir(part_name) / "media", name, members)
    records = [_with_offsets(medium, offsets).as_row() for medium in media]
    since = started_at.replace(microsecond=0)  # the times in the records are not more precise than milliseconds
    urls = {row["uid"]: None if row["kind"] == DOCUMENT else row["url"] for row in rows}  # of the files of the rows
    logs.samples(_log, "samples have no media", _failures(records, urls, since))
    fetches = seen_in(records, urls, since, fetch_seconds.get() or [])
    fetch_seconds.reset(token)
    schema = DOCUMENT_MEDIA if any(row["kind"] == DOCUMENT for row in rows) else MEDIA
    table = signed(table_of(records, schema), fingerprint, tar_sha256)
    return replace(_result(table, urls, fetched, time.monotonic() - started, unspoken), seen=fetches)


def _fetch_rows(rows: list[dict[str, Any]], work: SliceWork, held_back: Mapping[str, str]) -> tuple[int, list[Medium]]:
    """How many fetches were made, and the medium of each row.

    Args:
        held_back: uid -> rule of the source's filter; such rows are not fetched, but what is stored of them is kept.
    """
    is_stored = {uid for uid, record in work.earlier.records.items() if record.status == "success"}
    refused = [row for row in rows if row["uid"] in held_back and row["uid"] not in is_stored and not row["problem"]]
    refused_uids = {row["uid"] for row in refused}
    rows = [row for row in rows if row["uid"] not in refused_uids]
    usable = [row for row in rows if row["problem"] is None and (row["url"] is not None or row["kind"] in WITHOUT_URL)]
    usable_uids = {row["uid"] for row in usable}
    media = [Medium(_unusable_row_record(row)) for row in rows if row["uid"] not in usable_uids]
    media += [Medium(MediaRecord(row["uid"], "refused", error=held_back[row["uid"]])) for row in refused]
    media += [Medium(MediaRecord(row["uid"], "success")) for row in usable if row["kind"] == "text"]
    work.advance(len(media))
    fetched_urls, images = fetch_image_rows([row for row in usable if row["kind"] == "image"], work)
    fetched_of_documents, documents = fetch_document_rows([row for row in usable if row["kind"] == DOCUMENT], work)
    recording_rows = [row for row in usable if row["kind"] in ("video", "audio")]
    fetched_rows, recordings = fetch_recording_rows(recording_rows, work)
    return fetched_urls + fetched_of_documents + fetched_rows, [*media, *images, *documents, *recordings]


def _with_speech(media: list[Medium], rows: list[dict[str, Any]], work: SliceWork) -> tuple[list[Medium], int]:
    """The media with speech for samples that have no sound, and how many captions could not be spoken."""
    if work.settings.synthesis.speech <= 0:
        return media, 0
    row_by_uid = {row["uid"]: row for row in rows}
    silent = [medium.record for medium in media if medium.record.status == "success" and not medium.record.audio_s]
    silent_rows = [row_by_uid[record.uid] for record in silent]
    spoken, failed = speak_captions(silent_rows, work.settings.synthesis, work.settings.seed)
    media_with_speech = []
    for medium in media:
        if (speech := spoken.get(medium.record.uid)) is not None:
            record = replace(medium.record, audio_s=speech.seconds, synthetic="audio")
            # without an owner: a picture that rows share is stored again beside each row's own speech
            medium = Medium(record, (*medium.members, ("flac", work.spool.add(speech.flac))))  # noqa: PLW2901
        media_with_speech.append(medium)
    return media_with_speech, len(failed)


def _with_offsets(medium: Medium, offsets: Mapping[str, int]) -> MediaRecord:
    """The record with the places of its members in the tar."""
    members = [
        Member(ext=ext, offset=offsets[medium.member_name(ext)], length=data.length) for ext, data in medium.members
    ]
    return medium.record.with_members(members)


def _ignore_progress(rows: int) -> None:
    """Progress that nobody listens to."""


def _unusable_row_record(row: dict[str, Any]) -> MediaRecord:
    problem = row["problem"] or "no URL"
    return MediaRecord(row["uid"], "refused", error=OPT_OUT if problem == OPT_OUT else "bad_row", detail=problem)


def _with_rule(medium: Medium, rule: str | None) -> Medium:
    """A stored medium with the rule that holds it back: selection drops it, and a loosened rule needs no fetch."""
    if rule is None or medium.record.status != "success":
        return medium
    return replace(medium, record=replace(medium.record, error=rule))


def _refused_if_opted_out(medium: Medium, opt_out: OptOut) -> Medium:
    """The medium, or a refusal without members if the owner of that very file has opted out."""
    sha256 = medium.record.sha256
    if not opt_out.covers_file(sha256):
        return medium
    return Medium(MediaRecord(medium.record.uid, "refused", error=OPT_OUT, detail=OPT_OUT, sha256=sha256))


def _valid_earlier(
    workspace: Workspace, part_name: str, name: str, fingerprint: str, settings: MediaSettings
) -> Earlier:
    """The results of an earlier run, without the records of rows that are fetched as if for the first time.

    These are files whose opt-out was lifted, and failures that a changed setting may have caused.
    """
    reuse = settings.reuse.get(name)
    also_valid, due_errors = ((), frozenset[str]()) if reuse is None else ((reuse.settings,), reuse.again.errors)
    earlier = read_earlier(workspace, part_name, name, fingerprint, *also_valid)
    records = {
        uid: replace(record, error=None) if is_rule(record.error) else record
        for uid, record in earlier.records.items()
        if not (record.status == "refused" and is_rule(record.error))
        and record.error not in due_errors
        and (record.error != OPT_OUT or settings.opt_out.covers_file(record.sha256))
    }
    return replace(earlier, records=records)


def _failures(
    records: list[dict[str, Any]], urls: Mapping[str, str | None], since: datetime
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Error class, and uid with host, of each row that was fetched in this run without success."""
    for record in records:
        fetched_at = record["fetched_at"]
        if record["error"] and fetched_at is not None and fetched_at >= since:
            yield record["error"], {"uid": record["uid"], "host": host_and_port(urls[record["uid"]] or "")}


def _result(
    table: pa.Table, urls: Mapping[str, str | None], fetched: int, seconds: float, unspoken: int
) -> SliceResult:
    counts, reasons, next_retry_at = media_counts(table, urls)
    if unspoken:
        counts["unspoken"] = unspoken
    sizes = table["bytes"].drop_null().to_pylist()
    numbers = {"fetched": fetched, "seconds": seconds, "bodies": len(sizes), "bytes": sum(sizes)}
    return SliceResult(table, counts, reasons, numbers, next_retry_at)
