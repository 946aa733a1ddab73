"""Near-duplicate texts by MinHash: found within a bound, the same in any order, quickly."""

from __future__ import annotations

import random
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mmdata.select.near_texts import HASHES, MIN_CHARACTERS, min_hashes, near_text_leaders, read_captions, similarity
from mmdata.select.verdicts import STAYS
from mmdata.storage.tables import write_table
from mmdata.workspace.layout import Workspace

LEAST = 0.75


def sentences(count: int, seed: int = 0) -> list[str]:
    """Different texts of 20 to 60 words."""
    draws = random.Random(seed)
    words = ["".join(draws.choices("abcdefghijklmnop", k=draws.randint(2, 9))) for _ in range(3000)]
    return [" ".join(draws.choices(words, k=draws.randint(20, 60))) for _ in range(count)]


def leaders(*texts: str | None) -> list[int]:
    series = pl.Series(texts, dtype=pl.String)
    return near_text_leaders(series, np.arange(len(series), dtype=np.uint32), LEAST).tolist()


@pytest.mark.parametrize(
    "other",
    [
        "Stir the onions in a pan with some butter until they are soft and golden",
        "Stir the onions in a pan with some butter until they are soft and golden.!",
        "stir the Onions in a pan with some butter until they are soft and golden.",
        "Stirr the onions in a pan with some butter until they are soft and golden.",
        "Stir the onions in a pan with some butter until they're soft and golden.",
    ],
    ids=["without a mark", "two marks", "case", "a letter within", "contracted"],
)
def test_a_text_with_one_character_more_or_less_is_a_duplicate(other: str) -> None:
    assert leaders("Stir the onions in a pan with some butter until they are soft and golden.", other) == [STAYS, 0]


@pytest.mark.parametrize("at", range(0, MIN_CHARACTERS + 1, 4))
def test_one_character_more_is_found_from_the_shortest_text_on(at: int) -> None:
    text = "the quick brown fox jumps up"
    assert len(text) == MIN_CHARACTERS
    assert leaders(text, text[:at] + "x" + text[at:]) == [STAYS, 0]


def test_other_texts_short_texts_and_missing_ones_stay() -> None:
    assert leaders("Stir the onions in a pan until they are soft", "Serve the onions in a bowl while they are hot") == [
        -1,
        -1,
    ]
    assert leaders("recipe number 7", "recipe number 8", None, None, "", "") == [STAYS] * 6
    assert leaders() == []


def test_texts_of_chinese_are_compared_by_characters() -> None:
    text = "把洋葱切成小块放进锅里用黄油慢慢炒到变软变黄然后加入高汤煮二十分钟再用盐和胡椒调味"
    assert leaders(text, text + "。", "天" * 3 + text[::-1]) == [STAYS, 0, STAYS]


def test_the_best_of_similar_texts_stays_whatever_the_order() -> None:
    texts = sentences(200)
    texts += [text + "!" for text in texts[:50]] + [text[:-1] for text in texts[:50]]
    rank = np.random.default_rng(0).permutation(len(texts)).astype(np.uint32)
    found = near_text_leaders(pl.Series(texts), rank, LEAST)
    groups = [{at, 200 + at, 250 + at} for at in range(50)]
    for group in groups:
        best = min(group, key=lambda at: rank[at])
        assert {at: int(found[at]) for at in group} == {at: STAYS if at == best else best for at in group}
    shuffled = np.random.default_rng(1).permutation(len(texts))
    again = near_text_leaders(pl.Series(texts).gather(shuffled), rank[shuffled], LEAST)
    assert [shuffled[leader] if leader != STAYS else STAYS for leader in again] == found[shuffled].tolist()


def test_the_bound_is_exact() -> None:
    base, draws = sentences(300, seed=1), random.Random(2)
    pairs = []
    for text in base:
        words = text.split()
        for _ in range(draws.randint(1, 12)):
            words[draws.randrange(len(words))] = "changed"
        pairs.append((text, " ".join(words)))
    found = leaders(*(text for pair in pairs for text in pair))
    alike = [similarity(*pair) >= LEAST for pair in pairs]
    assert 50 < sum(alike) < 250
    assert [found[2 * at + 1] == 2 * at for at in range(300)] == alike


def test_hashes_are_the_same_alone_and_among_others() -> None:
    texts = sentences(20)
    together = min_hashes(pl.Series(texts))
    assert together.shape == (20, HASHES)
    assert all(np.array_equal(min_hashes(pl.Series([text]))[0], row) for text, row in zip(texts, together, strict=True))


def test_captions_are_read_in_the_order_of_the_rows(tmp_path: Path) -> None:
    tables = []
    for number in range(3):
        tables.append(Workspace(str(tmp_path)).table("web-000000", "rows", f"{number:04d}"))
        write_table(tables[-1], pl.DataFrame({"caption": [f"{number} {row}" for row in range(4)]}).to_arrow())
    place, row = np.array([2, 0, 2, 1]), np.array([3, 1, 0, 2])
    assert read_captions(tables, place, row).to_list() == ["2 3", "0 1", "2 0", "1 2"]


@pytest.mark.slow
def test_a_hundred_thousand_texts_take_seconds() -> None:
    texts = sentences(90_000)
    texts += [text[:40] + "x" + text[40:] for text in texts[:10_000]]
    start = time.perf_counter()
    found = near_text_leaders(pl.Series(texts), np.arange(len(texts), dtype=np.uint32), LEAST)
    assert time.perf_counter() - start < 60
    assert (found[:90_000] == STAYS).all()
    assert (found[90_000:] == np.arange(10_000)).mean() > 0.999
