"""The bank: drawn once by hash, the same for every order and cut, kept while the corpus grows."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from upath import UPath

from mmdata.errors import DataError, UserError
from mmdata.samples import sample_uid
from mmdata.select.scores.bank import Bank, bank_path, draw_bank, keep_bank, leave_out
from mmdata.storage.tables import write_table
from tests.support.pair_vectors import pairs

COUNT = 60
PICTURES, TEXTS = pairs(COUNT, dim=4, seed=2)
UIDS = [sample_uid(f"http://host.test/{number}.jpg", "a picture") for number in range(COUNT)]


def tables_of(folder: Path, slices: Sequence[Sequence[int]], texts: bool = True) -> list[UPath]:
    """Features tables with these samples; every seventh has no score, every ninth has a score and no vectors."""
    paths = []
    for place, of_slice in enumerate(slices):
        numbers = sorted(of_slice, key=lambda number: UIDS[number])
        path = UPath(folder / f"{place:04d}.parquet")
        columns = {
            "uid": pa.array([UIDS[n] for n in numbers], pa.string()),
            "clip_score": pa.array([None if n % 7 == 0 else 0.3 for n in numbers], pa.float32()),
            "embedding": _vectors(PICTURES, numbers),
        }
        if texts:
            columns["text_embedding"] = _vectors(TEXTS, numbers)
        write_table(path, pa.table(columns))
        paths.append(path)
    return paths


def _vectors(matrix: np.ndarray, numbers: Sequence[int]) -> pa.Array:
    return pa.array([None if n % 9 == 0 else matrix[n] for n in numbers], pa.list_(pa.float16()))


def same(one: Bank, other: Bank) -> bool:
    return one.uids == other.uids and one.digest == other.digest


@given(st.randoms(use_true_random=False), st.integers(1, 5))
@settings(max_examples=10)
def test_any_order_and_any_cut_into_tables_gives_the_same_bank(
    tmp_path_factory: pytest.TempPathFactory, rng: random.Random, cuts: int
) -> None:
    folder = tmp_path_factory.mktemp("tables")
    numbers = rng.sample(range(COUNT), COUNT)
    whole = draw_bank(tables_of(folder, [range(COUNT)]), 10, seed=0)
    cut = draw_bank(tables_of(folder, [numbers[start::cuts] for start in range(cuts)]), 10, seed=0)
    assert same(whole, cut)
    assert len(whole.uids) == 10
    chosen = [UIDS.index(uid) for uid in whole.uids]
    assert all(number % 7 and number % 9 for number in chosen), "only samples with a score and both vectors"
    assert (whole.pictures == PICTURES[chosen]).all()
    assert (whole.texts == TEXTS[chosen]).all()


def test_a_repeated_pair_is_in_the_bank_once(tmp_path: Path) -> None:
    tables = tables_of(tmp_path, [range(COUNT), range(COUNT)])
    assert same(draw_bank(tables, 10, seed=0), draw_bank(tables[:1], 10, seed=0))


def test_a_full_bank_stays_however_the_corpus_grows(tmp_path: Path) -> None:
    path = bank_path(UPath(tmp_path / "scores"), "scorer", 10)
    first = keep_bank(path, tables_of(tmp_path, [range(20)]), 10, 0)
    grown = keep_bank(path, tables_of(tmp_path, [range(COUNT)]), 10, 0)
    assert same(first, grown)
    assert first.is_full
    other_seed = keep_bank(path, tables_of(tmp_path, [range(COUNT)]), 10, 1)
    assert same(first, other_seed)
    assert not same(first, draw_bank(tables_of(tmp_path, [range(COUNT)]), 10, seed=0))


def test_a_bank_that_the_corpus_could_not_fill_is_drawn_anew_when_there_are_twice_as_many_pairs(tmp_path: Path) -> None:
    path = bank_path(UPath(tmp_path / "scores"), "scorer", 40)
    few = keep_bank(path, tables_of(tmp_path, [range(12)]), 40, 0)
    assert 2 <= len(few.uids) < 12
    more = keep_bank(path, tables_of(tmp_path, [range(16)]), 40, 0)
    assert same(few, more)
    twice = keep_bank(path, tables_of(tmp_path, [range(COUNT)]), 40, 0)
    assert len(twice.uids) > 2 * len(few.uids)


def test_a_sample_that_is_left_out_leaves_every_bank_and_the_others_stay(tmp_path: Path) -> None:
    folder = UPath(tmp_path / "scores")
    leave_out(folder, frozenset(UIDS))
    path, unused = bank_path(folder, "scorer", 10), bank_path(folder, "another", 40)
    tables = tables_of(tmp_path, [range(COUNT)])
    bank = keep_bank(path, tables, 10, 0)
    keep_bank(unused, tables, 40, 0)
    gone = frozenset(bank.uids[2:4])
    leave_out(folder, gone)
    left = keep_bank(path, tables, 10, 0)
    assert left.uids == bank.uids[:2] + bank.uids[4:]
    assert (left.pictures == np.delete(bank.pictures, [2, 3], axis=0)).all()
    assert left.is_full, "it is not drawn anew"
    for file in (path, unused):
        assert not any(uid.encode() in file.read_bytes() for uid in gone)


def test_a_corpus_without_pairs_is_told_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"0 of the corpus have both vectors. Remedy: `score.text_embeddings: true`"):
        draw_bank(tables_of(tmp_path, [range(20)], texts=False), 10, seed=0)


def test_a_damaged_bank_is_named_with_what_deleting_it_means(tmp_path: Path) -> None:
    path = bank_path(UPath(tmp_path), "scorer", 10)
    path.write_bytes(b"no bank")
    with pytest.raises(DataError, match=r"bank-.*\.npz: not a bank.*Remedy: delete it; a new one is drawn"):
        keep_bank(path, [], 10, 0)
    path.unlink()
    assert keep_bank(path, tables_of(tmp_path, [range(COUNT)]), 10, 0).is_full
