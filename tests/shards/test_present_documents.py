"""A released document has its fetched pictures only: markers, members and URLs agree in number and order."""

from __future__ import annotations

import json
from itertools import pairwise

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from mmdata.documents import MARKER, document_text, picture_urls, texts_between
from mmdata.samples import MEMBER
from mmdata.shards.present_documents import present_documents

SCHEMA = {
    "kind": pl.String,
    "caption": pl.String,
    "extra": pl.String,
    "ext": pl.String,
    "offset": pl.Int64,
    "length": pl.Int64,
    "further": pl.List(pl.Struct({field.name: pl.String if field.name == "ext" else pl.Int64 for field in MEMBER})),
    "pictures": pl.List(pl.Struct({"width": pl.Int32, "height": pl.Int32})),
}


def row_of(count: int, present: list[int]) -> dict:
    """A document of numbered texts and pictures, of which some are present."""
    members = [{"ext": f"{place:03d}.jpg", "offset": 1000 * place, "length": place + 1} for place in present]
    return {
        "kind": "document",
        "caption": document_text([f"text {at}" for at in range(count + 1)]),
        "extra": json.dumps({"lang": "en", "picture_urls": [f"https://e.org/{place}" for place in range(count)]}),
        **(members[0] if members else {"ext": None, "offset": None, "length": None}),
        "further": members[1:] or None,
        "pictures": [{"width": 10 + place, "height": 2} for place in range(count)],
    }


@given(st.integers(1, 12).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1), min_size=1))))
def test_what_is_missing_leaves_no_trace_and_all_else_its_order(drawn):
    count, places = drawn[0], sorted(drawn[1])
    image = {**dict.fromkeys(SCHEMA), "kind": "image", "caption": f"a {MARKER} tag", "extra": "{}", "ext": "jpg"}
    frame = pl.DataFrame([image, row_of(count, places)], SCHEMA)
    same, released = present_documents(frame).to_dicts()
    assert {name: same[name] for name in image if name != "pictures"} == {
        k: v for k, v in image.items() if k != "pictures"
    }
    assert same["document_pixels"] is None
    members = [released["ext"], *(member["ext"] for member in released["further"] or [])]
    assert members == [f"{number:03d}.jpg" for number in range(len(places))]
    offsets = [released["offset"], *(member["offset"] for member in released["further"] or [])]
    assert offsets == [1000 * place for place in places]
    assert picture_urls(released["extra"]) == [f"https://e.org/{place}" for place in places]
    assert json.loads(released["extra"])["lang"] == "en"
    bounds = [-1, *places, count]
    expected = [" ".join(f"text {at}" for at in range(a + 1, b + 1)) for a, b in pairwise(bounds)]
    assert texts_between(released["caption"]) == expected
    assert released["document_pixels"] == sum(2 * (10 + place) for place in places)


def test_samples_without_documents_are_left_alone():
    frame = pl.DataFrame([row_of(2, [0, 1])], SCHEMA).drop("pictures").with_columns(kind=pl.lit("video"))
    assert present_documents(frame).drop("document_pixels").equals(frame)
