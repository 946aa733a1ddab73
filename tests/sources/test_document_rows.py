"""OBELICS, MMC4 and marked texts become documents: one text with markers, and its pictures in their order."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.config import Source
from mmdata.documents import picture_urls, texts_between
from mmdata.errors import UserError
from mmdata.sources.batches import Batch
from mmdata.sources.document_rows import BadDocument, Picture, document_rows, segments_of

A, B, C = (f"https://pictures.example/{name}.jpg" for name in "abc")
PAGE = "https://page.example/story"
OBELICS = {
    "images": [[None, A, None, B], [C, None]],
    "texts": [["One.", None, "Two\n\nlines.", None], [None, "Third."]],
    "metadata": [json.dumps([None, {"src": A}, None, {"src": B}]), "[]"],
    "general_metadata": [json.dumps({"url": PAGE, "warc_filename": "x"}), "no JSON"],
}
MMC4 = [
    {
        "url": PAGE,
        "text_list": ["First.", "Second.", "Third."],
        "image_info": [
            {"image_name": "b.jpg", "raw_url": B, "matched_text_index": 2, "matched_sim": 0.3},
            {"image_name": "a.jpg", "raw_url": A, "matched_text_index": 0, "matched_sim": 0.2},
        ],
        "similarity_matrix": [[0.1, 0.2, 0.3], [0.2, 0.1, 0.0]],
    }
]


def documents(inbox, **source: Any):
    inbox.source = {"kind": "documents", **source}
    return inbox


def good(rows):
    return [(row["caption"], picture_urls(row["extra"]), row["url"], row["problem"]) for row in rows]


def test_obelics_is_read_as_it_is_published(inbox):
    text = pa.list_(pa.string())
    columns = {
        name: pa.array(values, text if name in ("images", "texts") else None) for name, values in OBELICS.items()
    }
    documents(inbox).parquet("train-00000.parquet", columns)
    rows = inbox.rows()
    assert good(rows) == [
        ("One. <image> Two lines. <image>", [A, B], PAGE, None),
        ("<image> Third.", [C], None, None),
    ]
    assert {row["kind"] for row in rows} == {"document"}
    assert json.loads(rows[0]["extra"])["metadata"] == OBELICS["metadata"][0]
    (stamp,) = [inbox.workspace.part_stamp(part, "rows") for part in inbox.live()]
    assert stamp.counts["pictures"] == 3


def test_mmc4_pictures_stand_before_the_text_that_they_match(inbox):
    documents(inbox).text("docs_shard_0.jsonl", "".join(json.dumps(row) + "\n" for row in MMC4))
    (row,) = inbox.rows()
    assert good([row]) == [("<image> First. Second. <image> Third.", [A, B], PAGE, None)]
    assert "similarity_matrix" in json.loads(row["extra"])


def test_a_mapping_reads_marked_texts_and_lists_in_csv(inbox):
    mapping = {"images": "pictures", "texts": "body", "page_url": "site", "lang": "language"}
    documents(inbox, columns=mapping)
    rows = [
        {"pictures": [A, B], "body": "<image> A cat. <image>A dog.", "site": PAGE, "language": "en"},
        {"pictures": A, "body": "[1] See <image>.", "site": "about:blank", "language": None},
    ]
    inbox.text("x.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    body, pictures = (json.dumps(value).replace('"', '""') for value in (["Text", None], [None, C]))
    inbox.text("y.csv", f'pictures,body,site,language\n"{pictures}","{body}",{PAGE},de\n')
    assert [(*row, lang) for row, lang in zip(good(inbox.rows()), ("en", None, "de"), strict=True)] == [
        ("<image> A cat. <image> A dog.", [A, B], PAGE, None, "en"),
        ("[1] See <image> .", [A], None, None, None),
        ("Text <image>", [C], PAGE, None, "de"),
    ]


@pytest.mark.parametrize(
    ("images", "texts", "problem"),
    [
        ([A], ["a", "b"], "unaligned"),
        ([A], ["a"], "unaligned"),
        ([A, None], ["a", None], "unaligned"),
        ([A, None], [None, 7], "malformed_row"),
        ([[A], None], [None, "a"], "malformed_row"),
        ({"a": 1}, ["a"], "malformed_row"),
        ([None, None], ["a", "b"], "no_pictures"),
        ([], [], "no_pictures"),
        (None, ["a"], "no_pictures"),
        ([A], None, "no_caption"),
        ([A, None], [None, " \u200b<image>"], "no_caption"),
        ([A] * 4 + [None], [None] * 4 + ["a"], "too_many_pictures"),
        (["data:image/png;base64,AAAA", None], [None, "a"], "not_http"),
        ([A, B], "a <image> b", "unaligned"),
        ([{"raw_url": A, "matched_text_index": 2}], ["a", "b"], "unaligned"),
        ([{"raw_url": None, "matched_text_index": 0}], ["a", "b"], "malformed_row"),
        ([A, None], [None, "x" * 1_000_001], "caption_too_long"),
    ],
)
def test_what_is_no_document_is_a_bad_row_with_its_reason(inbox, images, texts, problem):
    row = {"images": images, "texts": texts}
    documents(inbox, max_pictures=3).text(
        "x.jsonl", json.dumps(row) + "\n" + json.dumps({"images": [A, None], "texts": [None, "a"]})
    )
    rows = inbox.rows()
    assert [row["problem"] for row in rows] == [problem, None]
    assert all(row["kind"] == "document" for row in rows)


def test_rubbish_that_is_nested_deeply_is_a_bad_row(inbox):
    deep = "[" * 5000 + "]" * 5000
    documents(inbox).text(
        "x.jsonl", f'{{"images": {deep}, "texts": []}}\n{json.dumps({"images": [A], "texts": [None]})}\n'
    )
    assert [row["problem"] for row in inbox.rows()] == ["malformed_row", "no_caption"]


def test_a_picture_without_a_usable_url_goes_with_its_marker(inbox):
    row = {"images": [A, None, "data:,x", None, B], "texts": [None, "one", None, "two", None]}
    documents(inbox).text("x.jsonl", json.dumps(row))
    assert good(inbox.rows()) == [("<image> one two <image>", [A, B], None, None)]
    (stamp,) = [inbox.workspace.part_stamp(part, "rows") for part in inbox.live()]
    assert (stamp.counts["pictures"], stamp.counts["pictures_without_url"]) == (2, 1)


def test_pictures_as_bytes_and_missing_columns_are_errors_that_name_the_columns(inbox):
    documents(inbox).parquet(
        "x.parquet", {"images": pa.array([[b"\xff\xd8"]], pa.list_(pa.binary())), "texts": [["a"]]}
    )
    with pytest.raises(UserError, match=r"column images holds list<.*binary>, not text"):
        inbox.look()
    inbox.path("x.parquet").unlink()
    inbox.text("y.jsonl", json.dumps({"text": "a"}))
    with pytest.raises(UserError, match=r"neither images and texts \(OBELICS\).*Remedy: `columns:"):
        inbox.look()


def test_the_same_document_twice_is_one_row(inbox):
    row = json.dumps({"images": [A, None], "texts": [None, "a"]})
    other = json.dumps({"images": [A, None], "texts": [None, "a"], "general_metadata": {"url": PAGE}})
    documents(inbox).text("x.jsonl", f"{row}\n{other}\n")
    (only,) = inbox.rows()
    assert (only["copies"], only["url"]) == (2, None)


SEGMENTS = st.lists(
    st.one_of(st.sampled_from(["one", "two words", "3"]), st.sampled_from([A, B, C]).map(Picture)), min_size=1
)


@given(SEGMENTS.filter(lambda segments: any(isinstance(segment, Picture) for segment in segments)))
def test_all_forms_of_a_document_give_the_same_segments(segments):
    images = [segment.url if isinstance(segment, Picture) else None for segment in segments]
    texts = [None if isinstance(segment, Picture) else segment for segment in segments]
    assert segments_of(images, texts) == segments
    urls = [url for url in images if url is not None]
    marked = "".join("<image>" if text is None else f" {text} " for text in texts)
    spoken = [segment.strip() if isinstance(segment, str) else segment for segment in segments_of(urls, marked)]
    assert [s for s in spoken if s] == _joined(segments)


def _joined(segments):
    joined: list[Any] = []
    for segment in segments:
        if joined and isinstance(segment, str) and isinstance(joined[-1], str):
            joined[-1] += f"  {segment}"
        else:
            joined.append(segment)
    return joined


@given(SEGMENTS.filter(lambda s: {isinstance(x, Picture) for x in s} == {True, False}))
def test_order_of_pictures_and_texts_survives_the_reading(segments):
    images = [segment.url if isinstance(segment, Picture) else None for segment in segments]
    texts = [None if isinstance(segment, Picture) else segment for segment in segments]
    nothing = [None]
    lists = json.dumps(images), json.dumps(texts)
    batch = Batch(0, [lists[0]], [lists[1]], nothing, nothing, nothing, nothing, nothing, nothing, nothing)
    source = Source.model_validate({"name": "d", "kind": "documents", "files": "x"})
    (row,) = document_rows([batch], source, "x", Counter())
    expected = [""]
    for segment in segments:
        if isinstance(segment, Picture):
            expected.append("")
        else:
            expected[-1] = f"{expected[-1]} {segment}".strip()
    assert (texts_between(row.caption), picture_urls(row.extra)) == (expected, [u for u in images if u is not None])


def test_a_bad_form_raises():
    with pytest.raises(BadDocument, match="malformed_row"):
        segments_of(7, ["a"])
