"""Fetches the pictures of documents: each URL of the slice once, as for rows of single pictures.

To `fetch_image_rows` every picture of a document is a row of its own. What came of each is kept in the column
`pictures` of the document's media record, so that a later run fetches only the pictures that are missing and due.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mmdata.documents import member_place, picture_urls
from mmdata.download.image_rows import fetch_image_rows
from mmdata.download.spool import Medium, SliceWork
from mmdata.optout.hashes import OptOut
from mmdata.optout.state import OPT_OUT
from mmdata.workspace.media_record import MediaRecord
from mmdata.workspace.media_tar import Earlier


def fetch_document_rows(rows: list[dict[str, Any]], work: SliceWork) -> tuple[int, list[Medium]]:
    """Fetch the pictures of some rows of kind `document`; pictures that an earlier run has stored are taken over.

    A document succeeds with the pictures that it has, if there is one; it is due again while another one is. It fails
    without any, for the reason that most of its pictures have.

    Returns:
        How many URLs were fetched, and the medium of each row.
    """
    if not rows:
        return 0, []
    urls_by_uid = {row["uid"]: picture_urls(row["extra"]) for row in rows}
    pictures = [
        {"uid": _picture_uid(row["uid"], place), "url": url, "caption": row["caption"]}
        | {"extra": None, "expected_sha256": None}
        for row in rows
        for place, url in enumerate(urls_by_uid[row["uid"]])
    ]
    earlier = Earlier(_earlier_pictures(work.earlier.records, urls_by_uid), work.earlier.tar)
    progress = _DocumentProgress(work, len(rows), len(pictures))
    fetched, media = fetch_image_rows(pictures, replace(work, earlier=earlier, advance=progress))
    by_uid = {medium.record.uid: medium for medium in media}
    opt_out = work.settings.opt_out
    return fetched, [
        _document(uid, [by_uid[_picture_uid(uid, place)] for place in range(len(urls))], opt_out)
        for uid, urls in urls_by_uid.items()
    ]


class _DocumentProgress:
    """Turns pictures that are done into documents that are done, in proportion."""

    def __init__(self, work: SliceWork, documents: int, pictures: int) -> None:
        self._work, self._documents, self._pictures = work, documents, pictures
        self._done = self._told = 0

    def __call__(self, pictures: int) -> None:
        self._done += pictures
        documents = self._done * self._documents // self._pictures
        self._work.advance(documents - self._told)
        self._told = documents


def _picture_uid(uid: str, place: int) -> str:
    return f"{uid}.{place:03d}"


def _earlier_pictures(
    records: Mapping[str, MediaRecord], urls_by_uid: Mapping[str, Sequence[str]]
) -> dict[str, MediaRecord]:
    """The record of each picture that was fetched before; a success only if its bytes were stored."""
    earlier: dict[str, MediaRecord] = {}
    for uid, urls in urls_by_uid.items():
        record = records.get(uid)
        if record is None or record.pictures is None or len(record.pictures) != len(urls):
            continue
        members = {member_place(member["ext"]): member for member in record.members if member["ext"][0].isdigit()}
        for place, picture in enumerate(record.pictures):
            stored = members.get(place)
            if stored is None and picture["status"] == "success":
                continue
            whole = MediaRecord(_picture_uid(uid, place), **picture, fetched_at=record.fetched_at)
            if stored is not None:
                whole = replace(whole, ext="jpg", offset=stored["offset"], length=stored["length"])
            earlier[whole.uid] = whole
    return earlier


def _document(uid: str, media: Sequence[Medium], opt_out: OptOut) -> Medium:
    """The medium of a document, from those of its pictures in their order."""
    records = [medium.record for medium in media]
    if (refused := next((r.sha256 for r in records if opt_out.covers_file(r.sha256)), None)) is not None:
        # the document goes whole, and its record names the file by which it is found when the entry is removed
        return Medium(MediaRecord(uid, "refused", error=OPT_OUT, detail=OPT_OUT, sha256=refused))
    stored = {place: medium for place, medium in enumerate(media) if medium.record.status == "success"}
    document = MediaRecord(
        uid,
        "success",
        detail=_missing(records),
        attempts=max(record.attempts for record in records),
        next_retry_at=min((r.next_retry_at for r in records if r.next_retry_at is not None), default=None),
        fetched_at=max((r.fetched_at for r in records if r.fetched_at is not None), default=None),
        pictures=[record.as_picture() for record in records],
    )
    if not stored:
        status, error = Counter((record.status, record.error) for record in records).most_common(1)[0][0]
        return Medium(replace(document, status=status, error=error))
    return Medium(
        _with_facts(document, {place: medium.record for place, medium in stored.items()}),
        tuple((f"{place:03d}.jpg", data) for place, medium in stored.items() for _, data in medium.members),
    )


def _with_facts(document: MediaRecord, pictures: Mapping[int, MediaRecord]) -> MediaRecord:
    """The record with the facts of its stored pictures: sums, and the sizes of the largest one."""
    largest = max(pictures.values(), key=lambda picture: (picture.original_width or 0) * (picture.original_height or 0))
    types = {picture.mime for picture in pictures.values()}
    faces = [picture.faces for picture in pictures.values() if picture.faces is not None]
    return replace(
        document,
        sha256=document_sha256({place: picture.sha256 or "" for place, picture in pictures.items()}),
        bytes=sum(picture.bytes or 0 for picture in pictures.values()),
        mime=types.pop() if len(types) == 1 else None,
        original_width=largest.original_width,
        original_height=largest.original_height,
        width=largest.width,
        height=largest.height,
        faces=max(faces, default=None),
    )


def document_sha256(files: Mapping[int, str]) -> str:
    """Identifies the files of a document's stored pictures with their places. Args: files: place -> SHA-256."""
    return hashlib.sha256(" ".join(f"{place}:{sha256}" for place, sha256 in sorted(files.items())).encode()).hexdigest()


def _missing(records: Sequence[MediaRecord]) -> str | None:
    """How many pictures a document lacks, and why; None if it has all."""
    errors = Counter(record.error for record in records if record.status != "success")
    if not errors:
        return None
    counts = ", ".join(f"{error} {count}" for error, count in sorted(errors.items(), key=str))
    return f"{errors.total()} of {len(records)} pictures are missing: {counts}"
