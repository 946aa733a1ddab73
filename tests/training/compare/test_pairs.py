"""Pairs are read from the tables of parts, each once, with their vectors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from upath import UPath

from mmdata.engine.freshness import releasable_parts
from mmdata.errors import DataError, UserError
from mmdata.storage.tables import read_table, write_table
from tests.support.compared import IMAGE_DIM, TEXT_DIM, Compared, make_compared
from training.compare.pairs import FACTS, PairTables, read_pairs


class Counting:
    """Vectors of captions that no table holds."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def embed(self, captions: Sequence[str]) -> np.ndarray:
        self.asked += captions
        return np.ones((len(captions), TEXT_DIM), np.float32)


def pairs_of(compared: Compared, group: str | None = None) -> PairTables:
    parts, _ = releasable_parts(compared.corpus, compared.workspace)
    return read_pairs(compared.workspace, parts, group)


def test_every_pair_stands_once_with_its_group(compared: Compared) -> None:
    found = pairs_of(compared, "group")
    assert found.frame["uid"].to_list() == sorted(compared.uids)
    assert found.frame["group"].n_unique() == len(compared.uids) / 2
    assert set(FACTS) < set(found.frame.columns)
    assert pairs_of(compared).frame["group"].null_count() == len(compared.uids)


def test_vectors_follow_the_wanted_rows_in_any_order(compared: Compared) -> None:
    found = pairs_of(compared)
    every = found.vectors(found.frame, Counting())
    assert every.image.shape == (len(compared.uids), IMAGE_DIM)
    assert every.text.shape == (len(compared.uids), TEXT_DIM)
    assert every.has_both.all()
    assert np.linalg.norm(every.image, axis=1) == pytest.approx(1.0)
    order = np.random.default_rng(0).permutation(len(compared.uids))[:50]
    some = found.vectors(found.frame[order], Counting())
    np.testing.assert_array_equal(some.image, every.image[order])
    np.testing.assert_array_equal(some.text, every.text[order])


def test_captions_without_a_kept_vector_are_embedded(tmp_path_factory: pytest.TempPathFactory) -> None:
    old = make_compared(tmp_path_factory.mktemp("old"), pairs=20)
    path = old.workspace.table("web-000000", "features", "0000")
    write_table(path, read_table(path).drop_columns(["text_embedding"]))
    found, captions = pairs_of(old), Counting()
    vectors = found.vectors(found.frame, captions)
    assert len(captions.asked) == 10
    assert vectors.has_both.all()


def test_parts_of_different_scorers_do_not_mix(tmp_path_factory: pytest.TempPathFactory) -> None:
    mixed = make_compared(tmp_path_factory.mktemp("mixed"), pairs=20)
    path = mixed.workspace.table("web-000001", "features", "0000")
    other = {b"scorer": b'{"name": "another", "fingerprint": "beef"}'}
    write_table(path, read_table(path).replace_schema_metadata(other))
    with pytest.raises(DataError, match=r"--redo web-000001:features:0000"):
        pairs_of(mixed)


def test_a_group_that_no_row_has_is_an_error(compared: Compared) -> None:
    with pytest.raises(UserError, match="keep_columns"):
        pairs_of(compared, "nothing")
    with pytest.raises(UserError, match="not a plain name"):
        pairs_of(compared, "a b")


def test_a_workspace_without_parts_has_no_pairs(compared: Compared) -> None:
    empty = read_pairs(compared.workspace, [])
    assert empty.frame.is_empty()
    assert empty.scorer is None
    assert UPath not in map(type, empty.tables)
