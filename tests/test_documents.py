"""The text of a document: markers stand where pictures stood, and go with their pictures."""

from __future__ import annotations

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from mmdata.documents import (
    MARKER,
    document_text,
    document_uid,
    neighbouring_texts,
    texts_between,
    with_pictures,
    words_of,
)

TEXTS = st.lists(
    st.sampled_from(["", "a cat", "one  two", MARKER, f"x{MARKER}y", "<im<image>age>", "ä\n b"]), min_size=1
)


def plain(text: str) -> str:
    return " ".join(text.replace(MARKER, " ").split())


@given(TEXTS)
def test_texts_come_back_in_their_order_without_markers_of_their_own(texts):
    assert texts_between(document_text(texts)) == [plain(text) for text in texts]


@given(TEXTS, st.data())
def test_texts_around_a_lost_picture_become_one_and_all_other_neighbours_stay(texts, data):
    kept = data.draw(st.sets(st.integers(0, max(len(texts) - 2, 0)))) & set(range(len(texts) - 1))
    expected = [plain(texts[0])]
    for place, text in enumerate(texts[1:]):
        if place in kept:
            expected.append(plain(text))
        else:
            expected[-1] = plain(f"{expected[-1]} {text}")
    assert texts_between(with_pictures(document_text(texts), kept)) == expected


@given(TEXTS)
def test_a_document_with_all_its_pictures_is_what_it_was(texts):
    text = document_text(texts)
    assert with_pictures(text, range(len(texts) - 1)) == text


def test_neighbours_are_the_nearest_texts_on_both_sides():
    texts = texts_between("<image> a <image> <image> b <image>")
    assert [neighbouring_texts(texts, place) for place in range(4)] == [["a"], ["a", "b"], ["a", "b"], ["b"]]


def test_words_of_a_document_are_read_without_its_markers():
    frame = pl.DataFrame({"kind": ["document", "image", None], "caption": ["a <image> b", "a <image> b", None]})
    assert frame.select(words_of())["caption"].to_list() == ["a b", "a <image> b", None]


def test_the_uid_tells_order_and_place_of_pictures_and_texts():
    uids = {
        document_uid(["u", "v"], "a <image> b <image>"),
        document_uid(["v", "u"], "a <image> b <image>"),
        document_uid(["u", "v"], "b <image> a <image>"),
        document_uid(["u", "v"], "<image> a <image> b"),
        document_uid(["u"], "a <image> b"),
    }
    assert len(uids) == 5
