"""What a media table is counted by."""

from __future__ import annotations

from datetime import UTC, datetime

from mmdata.download.media_counts import media_counts
from mmdata.engine.freshness import fetched_files
from mmdata.samples import MEDIA, table_of
from mmdata.workspace.media_record import MediaRecord


def test_statuses_errors_and_the_first_retry_are_counted() -> None:
    due = [datetime(2026, 5, day, tzinfo=UTC) for day in (3, 2)]
    records = [
        MediaRecord("a", "success"),
        MediaRecord("b", "success", synthetic="audio"),
        MediaRecord("c", "failed_to_download", error="http_503", next_retry_at=due[0]),
        MediaRecord("d", "failed_to_download", error="http_503", next_retry_at=due[1]),
        MediaRecord("e", "refused", error="bad_row"),
        MediaRecord("f", "refused", error="opt_out"),
    ]
    counts, errors, first_retry = media_counts(table_of([record.as_row() for record in records], MEDIA), {})
    expected = {"rows": 6, "fetchable": 4, "success": 2, "failed_to_download": 2, "refused": 2, "spoken": 1}
    assert dict(counts) == expected
    assert dict(errors) == {"http_503": 2, "bad_row": 1, "opt_out": 1}
    assert first_retry == "2026-05-02T00:00:00+00:00"


def test_an_empty_table_has_no_retry() -> None:
    assert media_counts(MEDIA.empty_table(), {}) == ({"rows": 0, "fetchable": 0}, {}, None)


def test_a_file_counts_once_however_many_rows_it_has() -> None:
    records = [
        *(MediaRecord(f"long{n}", "failed_to_resize", error="past_end") for n in range(30)),
        *(
            MediaRecord(f"half{n}", "success" if n else "failed_to_resize", error=None if n else "past_end")
            for n in range(3)
        ),
        MediaRecord("alone", "success"),
        MediaRecord("text", "success"),
        MediaRecord("bad", "refused", error="bad_row"),
    ]
    urls = {record.uid: record.uid.rstrip("0123456789") for record in records} | {"text": None}
    counts, _, _ = media_counts(table_of([record.as_row() for record in records], MEDIA), urls)
    assert (counts["fetchable"], counts["success"]) == (35, 4)
    assert (counts["further_rows"], counts["further_success"]) == (31, 1)
    assert fetched_files(counts) == (3, 4), "long, half, alone and text; long gave nothing"
