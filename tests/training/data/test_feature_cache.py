"""A table gives back what was put into it, whatever the parts, and a killed writer leaves no half part."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata.errors import DataError
from training.data import feature_cache
from training.data.feature_cache import CachedTexts, FeatureTable, feature_key, text_key

DATA = st.lists(st.binary(max_size=6), min_size=1, max_size=20, unique=True)


def features_of(data: bytes) -> torch.Tensor:
    return torch.tensor([[len(data), sum(data)]], dtype=torch.float16)


@settings(max_examples=25, deadline=None)
@given(data=DATA, cuts=st.lists(st.integers(1, 5), min_size=1, max_size=20), absent=st.binary(min_size=7, max_size=9))
def test_any_cut_into_parts_gives_every_feature_back(
    tmp_path_factory: pytest.TempPathFactory, data: list[bytes], cuts: list[int], absent: bytes
) -> None:
    table = FeatureTable(tmp_path_factory.mktemp("table"))
    left = list(data)
    for cut in cuts:
        part, left = left[:cut], left[cut:]
        if part:
            table.add([feature_key(item) for item in part], torch.stack([features_of(item) for item in part]))
    table.reopen()
    stored = data[: len(data) - len(left)]
    assert len(table) == len(stored)
    for item in data:
        found = table.get(feature_key(item))
        assert (feature_key(item) in table) == (item in stored)
        assert torch.equal(found, features_of(item)) if item in stored else found is None  # type: ignore[arg-type]
    assert feature_key(absent) not in table


def test_keys_tell_the_pieces_of_their_data_apart_and_may_end_in_zeros(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert feature_key(b"ab", b"c") != feature_key(b"a", b"bc") != feature_key(b"abc")
    assert len({feature_key(bytes([byte])) for byte in range(256)}) == 256
    table = FeatureTable(tmp_path)
    keys = [b"\0" * 16, b"a" * 15 + b"\0", b"a" * 16]
    table.add(keys, torch.arange(3.0)[:, None])
    table.reopen()
    assert [float(table.get(key)) for key in keys] == [0.0, 1.0, 2.0]  # type: ignore[arg-type]


def test_more_parts_than_may_be_open_and_a_key_in_two_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_cache, "MAX_OPEN_PARTS", 2)
    table = FeatureTable(tmp_path)
    keys = [feature_key(bytes([number])) for number in range(6)]
    for number, key in enumerate(keys):
        table.add([key, keys[0]], torch.tensor([[float(number)], [0.0]]))
    table.reopen()
    assert [float(table.get(key)) for key in keys] == [0, 1, 2, 3, 4, 5]  # type: ignore[arg-type]
    assert len(table) == 6
    assert len(table.parts()) == 6
    copy = pickle.loads(pickle.dumps(table))
    assert float(copy.get(keys[5])) == 5.0


def test_a_part_without_its_mark_is_not_read(tmp_path: Path) -> None:
    table = FeatureTable(tmp_path)
    table.add([feature_key(b"a")], torch.ones(1, 2))
    table.add([feature_key(b"b")], torch.ones(1, 2))
    (tmp_path / "parts" / feature_key(feature_key(b"b")).hex() / "done.json").unlink()
    table.reopen()
    assert feature_key(b"a") in table
    assert feature_key(b"b") not in table
    table.add([feature_key(b"c")], torch.ones(1, 2))
    table.reopen()
    assert len(table) == 2


def test_a_text_that_a_table_lacks_is_named(tmp_path: Path) -> None:
    table = FeatureTable(tmp_path / "texts")
    table.add([text_key("a cat"), text_key("")], torch.tensor([[1.0, 2.0], [0.0, 0.5]]))
    read = CachedTexts(table)
    table.reopen()
    assert torch.equal(read(["", "a cat"]), torch.tensor([[0.0, 0.5], [1.0, 2.0]], dtype=torch.float16))
    with pytest.raises(DataError, match=r"texts: lacks the features of the text 'a dog'.*Remedy"):
        read(["a dog"])
