"""The typed media record: the columns of the table, its members, and files that are not the expected ones."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from mmdata.samples import MEDIA, table_of
from mmdata.workspace.media_record import MediaRecord, Member, is_expected

STORED = MediaRecord(
    "a", "success", attempts=1, sha256="ab", width=3, height=2, faces=0, ext="jpg", offset=512, length=9
)


def test_the_fields_are_the_columns_of_the_table() -> None:
    assert [field.name for field in fields(MediaRecord)] == MEDIA.names


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
    record = STORED.as_hash_mismatch("CD", "ab")
    assert (record.status, record.error) == ("failed_to_download", "hash_mismatch")
    assert record.detail == "expected sha256 cd, got ab"
    assert (record.members, record.width, record.height, record.faces, record.next_retry_at) == ([], *[None] * 4)


@pytest.mark.parametrize(("expected", "resolved"), [("cd", False), ("ab", True), ("AB", True), (None, True)])
def test_a_mismatch_is_resolved_when_the_source_expects_that_file(expected: str | None, resolved: bool) -> None:
    assert STORED.as_hash_mismatch("cd", "ab").is_mismatch_resolved(expected) == resolved
    assert not STORED.is_mismatch_resolved(expected)


@pytest.mark.parametrize(("expected", "sha256"), [(None, "ab"), ("ab", None), ("AB", "ab")])
def test_a_file_is_accepted_unless_both_hashes_are_known_and_differ(expected: str | None, sha256: str | None) -> None:
    assert is_expected(expected, sha256)
    assert not is_expected("cd", "ab")
