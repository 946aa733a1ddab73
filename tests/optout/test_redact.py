"""Opted-out rows of a table lose their content, and all other rows stay as they are."""

from __future__ import annotations

import numpy as np

from mmdata.optout.redact import redacted_features, redacted_media, redacted_rows, rows_counts
from mmdata.samples import FEATURES, MEDIA, ROWS, table_of

UIDS = [f"{number:032x}" for number in range(3)]
FIRST, SECOND = np.array([True, False, False]), np.array([False, True, False])


def test_an_opted_out_row_keeps_identity_and_counts_only() -> None:
    shared = {"source": "web", "part": "web-000000", "kind": "image", "url": "http://e/1", "caption": "words"}
    before = table_of([{"uid": uid, "copies": 2, "row": row, **shared} for row, uid in enumerate(UIDS)], ROWS)
    table = redacted_rows(before, FIRST)
    assert table.schema.equals(ROWS)
    row = {name: value for name, value in table.slice(0, 1).to_pylist()[0].items() if value is not None}
    identity = {"uid": UIDS[0], "source": "web", "part": "web-000000", "kind": "image", "copies": 2, "row": 0}
    assert row == {**identity, "problem": "opt_out"}
    assert table.slice(1).equals(before.slice(1))
    counts, reasons = rows_counts({"rows": 6, "uids": 3, "usable": 3, "bad": 0, "repeated": 3}, table)
    assert counts == {"rows": 6, "uids": 3, "usable": 2, "bad": 0, "repeated": 3, "opt_out": 1}
    assert reasons == {"opt_out": 1}


def test_refused_media_keep_the_hash_only_if_they_are_refused_by_content() -> None:
    fetched = {"status": "success", "attempts": 1, "sha256": "ab" * 32, "ext": "jpg", "offset": 512, "length": 9}
    before = table_of([{"uid": uid, **fetched} for uid in UIDS], MEDIA)
    table = redacted_media(before, FIRST, SECOND)
    assert table["sha256"].to_pylist() == [None, "ab" * 32, "ab" * 32]
    assert table["status"].to_pylist() == ["refused", "refused", "success"]
    assert table["offset"].to_pylist() == [None, None, 512]
    assert table.slice(2).equals(before.slice(2))


def test_features_of_the_caption_stay_if_only_the_file_is_refused() -> None:
    before = table_of([{"uid": uid, "lang": "en", "n_words": 4, "clip_score": 0.3} for uid in UIDS], FEATURES)
    table = redacted_features(before, FIRST, SECOND)
    assert table["lang"].to_pylist() == [None, "en", "en"]
    assert table["clip_score"].to_pylist()[:2] == [None, None]
    assert table.slice(2).equals(before.slice(2))


def test_a_table_without_opted_out_rows_is_returned_as_it_is() -> None:
    table = table_of([{"uid": uid} for uid in UIDS], FEATURES)
    nobody = np.zeros(3, bool)
    assert redacted_features(table, nobody, nobody) is table
