"""Identity, draws and keys."""

from __future__ import annotations

from random import Random

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata import samples
from mmdata.samples import (
    COLUMNS,
    draws,
    estimate_tokens,
    key_uid,
    modality_signature,
    own_columns,
    sample_key,
    sample_uid,
)

UIDS = st.lists(st.text("0123456789abcdef", min_size=32, max_size=32), max_size=50)


def test_uid_tells_apart_url_caption_and_clip() -> None:
    uids = {
        sample_uid("http://a/", "b"),
        sample_uid("http://a/", "c"),
        sample_uid("http://a/b", ""),
        sample_uid("http://a/", "b", 0, 10),
        sample_uid("http://a/", "b", 0, 10.5),
        sample_uid(None, "b"),
        sample_uid("http://a/", "lone surrogate \ud800"),
    }
    assert len(uids) == 7
    assert all(len(uid) == 32 and set(uid) <= set("0123456789abcdef") for uid in uids)


@given(UIDS, st.integers(0, 2**31), st.randoms())
def test_a_draw_does_not_depend_on_order_or_company(uids: list[str], seed: int, random: Random) -> None:
    alone = {uid: draws(pl.Series([uid]), seed, "stage")[0] for uid in uids}
    random.shuffle(uids)
    together = draws(pl.Series(uids, dtype=pl.String), seed, "stage")
    assert dict(zip(uids, together, strict=True)) == alone
    assert all(0 <= value < 1 for value in together)


def test_draws_are_uniform_and_independent_between_stages_and_seeds() -> None:
    uids = pl.Series([sample_uid(None, str(i)) for i in range(20_000)])
    first, other, reseeded = draws(uids, 0, "a"), draws(uids, 0, "b"), draws(uids, 1, "a")
    counts = (first * 10).floor().value_counts().get_column("count")
    assert all(abs(count - 2000) < 200 for count in counts)
    table = pl.DataFrame({"first": first, "other": other, "reseeded": reseeded})
    assert abs(table.select(pl.corr("first", "other")).item()) < 0.03
    assert abs(table.select(pl.corr("first", "reseeded")).item()) < 0.03


def test_a_draw_stays_the_same_for_ever() -> None:
    uids = pl.Series(["00000000000000000000000000000000", "0123456789abcdef0123456789abcdef"])
    assert draws(uids, 7, "balance").to_list() == [0.5178210861334166, 0.42353525420223304]


def test_a_sliced_series_draws_as_the_whole() -> None:
    uids = pl.Series([sample_uid(None, str(i)) for i in range(100)])
    assert draws(uids[40:60], 0, "x").to_list() == draws(uids, 0, "x")[40:60].to_list()


def test_a_malformed_uid_is_refused() -> None:
    with pytest.raises(ValueError, match="32 hex digits"):
        draws(pl.Series(["abc"]), 0, "x")


def test_keys_and_signatures() -> None:
    assert (sample_key("ab"), sample_key("ab", 1), key_uid("ab_r12"), key_uid("ab")) == ("ab", "ab_r01", "ab", "ab")
    assert modality_signature("image", True) == "image+text"
    assert modality_signature("video", True, has_audio=True) == "audio+text+video"
    assert modality_signature("text", True) == "text"


def test_tokens_count_words_and_cjk_characters() -> None:
    frame = pl.DataFrame({"caption": ["a red bicycle", "一只猫", "cat 猫", "", None]})
    assert frame.select(estimate_tokens(pl.col("caption"))).to_series().to_list() == [4, 3, 3, 0, 0]


@pytest.mark.parametrize(
    ("stage", "schema"),
    [
        ("rows", samples.ROWS),
        ("media", samples.MEDIA),
        ("features", samples.FEATURES),
        ("selection", samples.SELECTION),
        ("shards", samples.INDEX),
    ],
)
def test_every_column_is_described_in_a_sentence_and_parquet_does_not_carry_it(stage: str, schema: pa.Schema) -> None:
    descriptions = {column.name: column.description for column in COLUMNS[stage]}
    assert list(descriptions) == schema.names
    for name, description in descriptions.items():
        assert description.endswith("."), name
        assert len(description.split()) >= 3, name
    assert schema.metadata is None
    assert all(field.metadata is None for field in schema)


def test_columns_that_cannot_be_read_are_none() -> None:
    assert own_columns('{"a": 1}') == {"a": 1}
    for extra in (None, "", "[1]", "{", "[" * 100_000, '{"a": ' + "9" * 5_000 + "}"):
        assert own_columns(extra) == {}
