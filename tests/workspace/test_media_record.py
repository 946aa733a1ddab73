"""The typed media record: the columns of the table, its members, and files that are not the expected ones."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from mmdata.documents import DOCUMENT_MEDIA
from mmdata.samples import MEDIA, table_of
from mmdata.workspace.media_record import ExpectedHashes, MediaRecord, Member

STORED = MediaRecord(
    "a", "success", attempts=1, sha256="ab", width=3, height=2, faces=0, ext="jpg", offset=512, length=9
)


def expecting(sha256: str | None = None, md5: str | None = None) -> ExpectedHashes:
    """The hashes of a row; the MD5 is in its extra columns."""
    return ExpectedHashes.of_row({"expected_sha256": sha256, "extra": f'{{"expected_md5": "{md5}"}}' if md5 else None})


def test_the_fields_are_the_columns_of_the_table() -> None:
    assert [field.name for field in fields(MediaRecord)] == DOCUMENT_MEDIA.names


def test_a_record_survives_its_table() -> None:
    record = replace(STORED, further=[Member(ext="flac", offset=2048, length=5)], frame_times_s=[0.5])
    (row,) = table_of([record.as_row()], MEDIA).to_pylist()
    assert MediaRecord.from_row(row) == record


def test_members_are_read_and_replaced_in_their_order() -> None:
    members = [Member(ext="000.jpg", offset=1, length=2), Member(ext="flac", offset=3, length=4)]
    record = STORED.with_members(members)
    assert record.members == members
    assert (record.ext, record.further) == ("000.jpg", members[1:])
    assert STORED.with_members([]).members == []
    assert replace(record, ext=None).members == []


def test_a_mismatch_keeps_no_trace_of_stored_bytes() -> None:
    record = STORED.as_hash_mismatch(expecting(sha256="CD"), "ab", None)
    assert (record.status, record.error) == ("failed_to_download", "hash_mismatch")
    assert record.detail == "expected sha256 cd, got ab"
    assert (record.members, record.width, record.height, record.faces, record.next_retry_at) == ([], *[None] * 4)


@pytest.mark.parametrize(("expected", "resolved"), [("cd", False), ("ab", True), ("AB", True), (None, True)])
def test_a_mismatch_is_resolved_when_the_source_expects_that_file(expected: str | None, resolved: bool) -> None:
    record = STORED.as_hash_mismatch(expecting(sha256="cd"), "ab", None)
    assert record.is_mismatch_resolved(expecting(sha256=expected)) == resolved
    assert not STORED.is_mismatch_resolved(expecting(sha256=expected))


@pytest.mark.parametrize(("expected", "resolved"), [("c" * 32, False), ("A" * 32, True), (None, True)])
def test_a_mismatch_of_the_md5_is_resolved_in_the_same_way(expected: str | None, resolved: bool) -> None:
    record = STORED.as_hash_mismatch(expecting(md5="d" * 32), "ab", "a" * 32)
    assert record.detail == f"expected md5 {'d' * 32}, got {'a' * 32}"
    assert record.is_mismatch_resolved(expecting(md5=expected)) == resolved


@pytest.mark.parametrize(("expected", "sha256"), [(None, "ab"), ("ab", None), ("AB", "ab")])
def test_a_file_is_accepted_unless_both_hashes_are_known_and_differ(expected: str | None, sha256: str | None) -> None:
    assert expecting(sha256=expected).allows(sha256, None)
    assert expecting(md5=expected).allows("ff", sha256)
    assert not expecting(sha256="cd").allows("ab", None)
    assert not expecting(md5="cd").allows("ff", "ab")


def test_a_file_is_confirmed_by_a_hash_that_is_known() -> None:
    assert expecting(md5="ab").confirms("ff", "ab")
    assert not expecting(md5="ab").confirms("ff", None)
    assert not expecting(sha256="cd", md5="ab").confirms("ff", "ab")
    assert not expecting().confirms("ff", "ab")
