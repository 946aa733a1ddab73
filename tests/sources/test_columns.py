"""The columns of LAION, DataComp and of mapped files."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from mmdata.errors import UserError


def test_laion_columns_go_where_they_belong(inbox):
    inbox.parquet(
        "a.parquet",
        {
            "URL": ["http://e/1", "http://e/2"],
            "TEXT": ["eins", "zwei"],
            "WIDTH": pa.array([640, None], pa.int32()),
            "similarity": [0.31, float("nan")],
            "punsafe": pa.array([0.1, None], pa.float32()),
            "hash": [2**62, -5],
            "LANGUAGE": ["de", None],
        },
    )
    first, second = inbox.rows()
    assert (first["lang"], second["lang"]) == ("de", None)
    assert json.loads(first["extra"]) == {"WIDTH": 640, "similarity": 0.31, "punsafe": 0.1, "hash": 2**62}
    assert json.loads(second["extra"]) == {"WIDTH": None, "similarity": None, "punsafe": None, "hash": -5}


def test_laion_400m_keeps_its_sample_id_licence_and_nsfw(inbox):
    inbox.parquet(
        "a.parquet",
        {"SAMPLE_ID": [7.0], "URL": ["http://e/1"], "TEXT": ["x"], "LICENSE": ["?"], "NSFW": ["UNLIKELY"]},
    )
    (row,) = inbox.rows()
    assert json.loads(row["extra"]) == {"SAMPLE_ID": 7.0, "LICENSE": "?", "NSFW": "UNLIKELY"}
    assert row["lang"] is None


def test_datacomp_columns_give_the_expected_hash(inbox):
    good, bad = "AB" * 32, "not a hash"
    inbox.parquet(
        "a.parquet",
        {
            "uid": ["u1", "u2", "u3"],
            "url": ["http://e/1", "http://e/2", "http://e/3"],
            "text": ["x", "y", "z"],
            "original_width": [10, 20, 30],
            "clip_l14_similarity_score": [0.2, 0.3, float("inf")],
            "face_bboxes": [[[0.1, 0.2, 0.3, 0.4]], [], None],
            "sha256": [good, bad, None],
        },
    )
    first, second, third = inbox.rows()
    assert first["expected_sha256"] == good.lower()
    assert second["problem"] == "bad_sha256"
    assert third["expected_sha256"] is None
    assert third["problem"] is None
    extra = json.loads(first["extra"])
    assert extra["uid"] == "u1"
    assert extra["face_bboxes"] == [[0.1, 0.2, 0.3, 0.4]]
    assert json.loads(third["extra"])["clip_l14_similarity_score"] is None


def test_a_mapping_reads_any_columns(inbox):
    inbox.source = {"kind": "pairs", "columns": {"url": "src", "caption": "alt", "lang": "l"}}
    inbox.text("a.csv", "id,src,alt,l\n1,http://e/1,eins,de\n")
    inbox.text("b.jsonl", '{"src": "http://e/2", "alt": "two", "l": "en", "more": {"a": [1, NaN]}}\n')
    first, second = inbox.rows()
    assert (first["caption"], first["lang"], json.loads(first["extra"])) == ("eins", "de", {"id": "1"})
    assert (second["caption"], second["lang"], json.loads(second["extra"])) == ("two", "en", {"more": {"a": [1, None]}})


def test_a_mapping_to_absent_columns_lists_those_found(inbox):
    inbox.source = {"kind": "pairs", "columns": {"url": "src", "caption": "alt"}}
    inbox.text("a.csv", "id,link,alt\n1,http://e/1,eins\n")
    with pytest.raises(UserError, match="no column src among its columns: id, link, alt"):
        inbox.look()
