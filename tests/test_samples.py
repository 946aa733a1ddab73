"""Identity, draws and keys."""

from __future__ import annotations

from random import Random

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.samples import draws, estimate_tokens, key_uid, modality_signature, sample_key, sample_uid
from mmdata.urls import canonical_url

UIDS = st.lists(st.text("0123456789abcdef", min_size=32, max_size=32), max_size=50)


@pytest.mark.parametrize(
    ("spelled", "canonical"),
    [
        ("HTTP://Example.COM:80/a b#top", "http://example.com/a%20b"),
        ("https://example.com:443", "https://example.com/"),
        ("https://example.com:8443/x?b=1&a=%e4", "https://example.com:8443/x?b=1&a=%E4"),
        (" https://example.com./ ", "https://example.com/"),
        ("https://bücher.example/", "https://xn--bcher-kva.example/"),
        ("http://[::1]:80/x", "http://[::1]/x"),
        ("http://[::1]/x", "http://[::1]/x"),
        ("not a url", "not a url"),
        ("http://[broken/", "http://[broken/"),
    ],
)
def test_one_url_has_one_spelling(spelled: str, canonical: str) -> None:
    assert canonical_url(spelled) == canonical


@given(st.text(max_size=80))
def test_canonical_url_is_idempotent_and_never_raises(text: str) -> None:
    once = canonical_url(text)
    assert canonical_url(once) == once


@given(st.text(max_size=60).map(lambda tail: "http://host.example/" + tail))
def test_canonical_url_of_a_web_address_is_idempotent(url: str) -> None:
    assert canonical_url(canonical_url(url)) == canonical_url(url)


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
