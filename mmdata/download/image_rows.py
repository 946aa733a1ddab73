"""Fetches the images of a slice: each URL once, however many rows share it. Used by `mmdata.download.slices`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

from mmdata.config import Download, Privacy
from mmdata.download import picture_process
from mmdata.download.images import FetchedImage, fetch_image, load_img2dataset, with_privacy
from mmdata.download.placeholders import Moved, is_moved, placeholders
from mmdata.download.spool import ByteRange, Medium, SliceWork, is_settled, record_of_fetch
from mmdata.errors import UserError
from mmdata.media.listed_faces import Box, listed_faces
from mmdata.web.failures import FetchError
from mmdata.web.guard import Guard, install
from mmdata.web.hosts import HOST_DOWN_AFTER, HostHealth, fetch_all
from mmdata.workspace.media_record import ExpectedHashes, MediaRecord


def fetch_image_rows(rows: list[dict[str, Any]], work: SliceWork) -> tuple[int, list[Medium]]:
    """Fetch the images of some rows; what an earlier run has stored is taken over.

    Returns:
        How many URLs were fetched, and the medium of each row.
    """
    rows_by_url: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        rows_by_url.setdefault(row["url"], []).append(row)
    settings, download = work.settings, work.settings.download
    records = {url: earlier for url, sharers in rows_by_url.items() if (earlier := work.earlier.of(sharers))}
    urls = [url for url in rows_by_url if not is_settled(records.get(url))]
    work.advance(len(rows) - sum(len(rows_by_url[url]) for url in urls))
    pictures: dict[str, ByteRange] = {
        url: work.in_old_tar(record.offset, record.length)
        for url, record in records.items()
        if record.status == "success"
    }
    if urls:
        load_img2dataset(download)
        install(Guard(download))
    health = HostHealth(HOST_DOWN_AFTER, work.pauses)
    moved: list[Moved] = []
    md5s: dict[str, str | None] = {}
    faces = {}
    if settings.privacy.blur_faces:
        faces = {url: [box for row in rows_by_url[url] for box in listed_faces(row["extra"])] for url in urls}
    fetch = partial(_fetch_safely, download=download, privacy=settings.privacy, health=health, faces=faces)
    with closing(picture_process):
        for url, image in fetch_all(urls, fetch, download.threads, download.per_host):
            attempts = records[url].attempts if url in records else 0
            record = record_of_fetch(rows_by_url[url][0]["uid"], url, image, attempts, download)
            records[url], md5s[url] = _with_picture(record, image), image.md5
            if image.data is not None:
                pictures[url] = work.spool.add(image.data)
                moved += _moved(url, image, rows_by_url[url])
            work.advance(len(rows_by_url[url]))
    if download.placeholder_urls is not None:
        for url, why in placeholders(moved, download.placeholder_urls):
            records[url] = _as_placeholder(records[url], why)
    media = [
        medium
        for url, sharers in rows_by_url.items()
        for medium in _media_of_sharers(sharers, records[url], pictures.get(url), md5s.get(url))
    ]
    return len(urls), media


def _moved(url: str, image: FetchedImage, rows: list[dict[str, Any]]) -> Iterator[Moved]:
    """The picture if it came from a file with another name; not if a row expects these very bytes."""
    is_confirmed = any(ExpectedHashes.of_row(row).confirms(image.sha256, image.md5) for row in rows)
    if is_moved(url, image.final_url) and not is_confirmed:
        assert image.final_url is not None
        assert image.sha256 is not None
        yield Moved(url, image.final_url, image.sha256, frozenset(row["caption"] or "" for row in rows))


def _as_placeholder(record: MediaRecord, why: str) -> MediaRecord:
    failure = FetchError("placeholder", why)
    no_picture = replace(record, original_width=None, original_height=None, width=None, height=None, faces=None)
    return replace(no_picture, status=failure.status, error=failure.error, detail=failure.detail)


def _media_of_sharers(
    sharers: list[dict[str, Any]], record: MediaRecord, picture: ByteRange | None, md5: str | None
) -> list[Medium]:
    """The media of the rows that share a URL. The picture is stored once, for those rows whose hash it has.

    Args:
        md5: of the file, if it was fetched in this run.
    """
    expected = {row["uid"]: ExpectedHashes.of_row(row) for row in sharers}
    accepting = {uid for uid, hashes in expected.items() if hashes.allows(record.sha256, md5)}
    media = []
    for row in sharers:
        row_record = replace(record, uid=row["uid"], further=None, audio_s=None, synthetic=None)
        if row["uid"] not in accepting:
            row_record = row_record.as_hash_mismatch(expected[row["uid"]], record.sha256, md5)
        members = (("jpg", picture),) if row_record.status == "success" and picture is not None else ()
        media.append(Medium(row_record, members, min(accepting, default=None)))
    return media


def _fetch_safely(
    url: str, download: Download, privacy: Privacy, health: HostHealth, faces: Mapping[str, Sequence[Box]]
) -> FetchedImage:
    """Fetch one image. Raises only what concerns the whole slice: MemoryError, UserError."""
    if (host_down := health.down_error(url)) is not None:
        return FetchedImage(host_down)
    try:
        image = with_privacy(fetch_image(url, download), download, privacy, faces.get(url, ()))
    except (MemoryError, UserError) as error:
        health.record(url, FetchError("unexpected", str(error)))  # other threads may wait for the result
        raise
    except Exception as error:  # noqa: BLE001 - an unforeseen error of one URL must not end the slice
        image = FetchedImage(FetchError("unexpected", f"{type(error).__name__}: {error}", may_pass=True))
    health.record(url, image.failure)
    return image


def _with_picture(record: MediaRecord, image: FetchedImage) -> MediaRecord:
    if image.data is None:
        return record
    (original_width, original_height), (width, height) = image.original_size, image.size
    return replace(
        record,
        original_width=original_width,
        original_height=original_height,
        width=width,
        height=height,
        faces=image.faces,
    )
