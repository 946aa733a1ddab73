"""What a media table is counted by."""

from __future__ import annotations

from datetime import UTC, datetime

from mmdata.download.media_counts import media_counts
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
    counts, errors, first_retry = media_counts(table_of([record.as_row() for record in records], MEDIA))
    expected = {"rows": 6, "fetchable": 4, "success": 2, "failed_to_download": 2, "refused": 2, "spoken": 1}
    assert dict(counts) == expected
    assert dict(errors) == {"http_503": 2, "bad_row": 1, "opt_out": 1}
    assert first_retry == "2026-05-02T00:00:00+00:00"


def test_an_empty_table_has_no_retry() -> None:
    assert media_counts(MEDIA.empty_table()) == ({"rows": 0, "fetchable": 0}, {}, None)
