"""The media of a slice while it is fetched: records, and where the bytes of their members are. Used by the stage."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, NamedTuple

from mmdata.config import Download
from mmdata.download.media_settings import MediaSettings
from mmdata.web.failures import url_was_contacted
from mmdata.web.host_pauses import HostPauses
from mmdata.web.large_files import FetchedFile
from mmdata.web.retries import next_retry_at, to_milliseconds
from mmdata.workspace.media_record import MediaRecord
from mmdata.workspace.media_tar import Earlier


class ByteRange(NamedTuple):
    """Bytes in an open file."""

    file: IO[bytes]
    offset: int
    length: int


class Spool:
    """A temporary file that many threads append to."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self._lock = threading.Lock()

    def add(self, data: bytes) -> ByteRange:
        """Append bytes; returns where they are."""
        with self._lock:
            offset = self.file.seek(0, io.SEEK_END)
            self.file.write(data)
        return ByteRange(self.file, offset, len(data))


@dataclass(frozen=True, slots=True)
class Medium:
    """What became of a row.

    Args:
        record: its media record. The offsets in it are set when the slice's tar is written.
        members: extension and bytes of each stored file, in order.
        owner: uid that names the members in the tar; None: the uid of the record.
    """

    record: MediaRecord
    members: Sequence[tuple[str, ByteRange]] = ()
    owner: str | None = None

    def member_name(self, ext: str) -> str:
        """The name of a member in the tar."""
        return f"{self.owner or self.record.uid}.{ext}"


@dataclass(frozen=True, slots=True)
class SliceWork:
    """What is needed to fetch the rows of a slice.

    Args:
        earlier: the records of the slice's last run.
        old_tar: the tar of the last run, open.
        spool: takes the bytes that are fetched.
        pauses: of the hosts that block us.
        advance: is called with the number of rows that are done.
    """

    settings: MediaSettings
    earlier: Earlier
    old_tar: IO[bytes]
    spool: Spool
    pauses: HostPauses
    advance: Callable[[int], None]

    def in_old_tar(self, offset: int | None, length: int | None) -> ByteRange:
        """Bytes in the tar of the last run."""
        assert offset is not None
        assert length is not None
        return ByteRange(self.old_tar, offset, length)


def record_of_fetch(uid: str, url: str, file: FetchedFile, earlier_attempts: int, download: Download) -> MediaRecord:
    """The record of a fetch, with nothing stored."""
    now, failure = datetime.now(UTC), file.failure
    attempts = earlier_attempts + url_was_contacted(failure)
    return MediaRecord(
        uid=uid,
        status=file.status,
        error=failure.error if failure else None,
        detail=failure.detail if failure else None,
        attempts=attempts,
        next_retry_at=next_retry_at(url, failure, attempts, download, now) if failure else None,
        sha256=file.sha256,
        bytes=file.size_bytes,
        mime=file.mime,
        fetched_at=to_milliseconds(now),
        etag=file.etag,
    )


def is_settled(record: MediaRecord | None) -> bool:
    """Whether nothing is to be fetched now: the last try succeeded, failed for good, or may not be repeated yet."""
    if record is None:
        return False
    due = record.next_retry_at
    return record.status == "success" or due is None or due > datetime.now(UTC)
