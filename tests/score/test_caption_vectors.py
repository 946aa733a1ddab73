"""Captions are embedded once each; their vectors become a column."""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from mmdata.score.caption_vectors import CaptionVectors, distinct_captions

TEXTS = st.lists(st.none() | st.sampled_from(["", "  ", "a", " a ", "b", "cat\n", "cat"]), max_size=12)


@given(TEXTS)
def test_each_row_gets_the_vector_of_its_caption(texts: list[str | None]) -> None:
    captions = pl.Series("caption", texts, pl.String)
    distinct = distinct_captions(captions)
    plain = [(text or "").strip() for text in texts]
    assert distinct.to_list() == list(dict.fromkeys(text for text in plain if text))
    values = np.arange(2 * len(distinct), dtype=np.float32).reshape(len(distinct), 2)
    vectors = CaptionVectors(distinct, values)
    wanted = np.arange(len(texts)) % 3 != 1
    place = {text: values[number].tolist() for number, text in enumerate(distinct)}
    expected = [place.get(text) if is_wanted else None for text, is_wanted in zip(plain, wanted, strict=True)]
    column = vectors.column(captions, wanted)
    assert column.type == pa.list_(pa.float16())
    assert column.to_pylist() == expected


def test_a_vector_that_is_not_finite_is_null() -> None:
    vectors = CaptionVectors(pl.Series(["a", "b"]), np.array([[np.nan, 0], [0, 1]], np.float32))
    assert vectors.column(pl.Series(["b", "a", "c"]), np.ones(3, bool)).to_pylist() == [[0, 1], None, None]
