"""The spool that threads share, the record of a fetch, and when a row is settled."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from mmdata.config import Download
from mmdata.download.spool import Medium, Spool, is_settled, record_of_fetch
from mmdata.web.failures import FetchError
from mmdata.web.large_files import FetchedFile
from mmdata.workspace.media_record import MediaRecord

NOW = datetime.now(UTC)


def test_threads_append_without_overwriting_each_other() -> None:
    pieces = [bytes([number]) * (1000 + number) for number in range(200)]
    with tempfile.TemporaryFile() as file, ThreadPoolExecutor(8) as pool:
        ranges = list(pool.map(Spool(file).add, pieces))
        for piece, stored in zip(pieces, ranges, strict=True):
            stored.file.seek(stored.offset)
            assert stored.file.read(stored.length) == piece


@pytest.mark.parametrize(
    ("record", "settled"),
    [
        (None, False),
        (MediaRecord("a", "success"), True),
        (MediaRecord("a", "refused", error="robots"), True),
        (MediaRecord("a", "failed_to_download", next_retry_at=NOW + timedelta(hours=1)), True),
        (MediaRecord("a", "failed_to_download", next_retry_at=NOW - timedelta(hours=1)), False),
    ],
)
def test_only_new_and_due_rows_are_fetched(record: MediaRecord | None, settled: bool) -> None:
    assert is_settled(record) == settled


def test_the_record_of_a_fetch_counts_the_tries_that_reached_the_url() -> None:
    tried = record_of_fetch("a", "http://h/x", FetchedFile(FetchError("timeout", "t", may_pass=True)), 2, Download())
    assert (tried.status, tried.error, tried.attempts) == ("failed_to_download", "timeout", 3)
    assert tried.next_retry_at is not None
    skipped = record_of_fetch("a", "http://h/x", FetchedFile(FetchError("host_down", "", may_pass=True)), 2, Download())
    assert skipped.attempts == 2
    whole = record_of_fetch("a", "http://h/x", FetchedFile(None, "00", 3, "image/png", '"e"'), 0, Download())
    assert (whole.status, whole.sha256, whole.bytes, whole.mime, whole.etag) == ("success", "00", 3, "image/png", '"e"')


def test_members_are_named_by_their_owner() -> None:
    assert Medium(MediaRecord("b", "success")).member_name("jpg") == "b.jpg"
    assert Medium(MediaRecord("b", "success"), owner="a").member_name("jpg") == "a.jpg"
