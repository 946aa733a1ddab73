"""Lists of ids: DataComp's files of uids, text files and columns of Parquet."""

from __future__ import annotations

import pickle
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata.errors import UserError
from mmdata.sources import id_list
from mmdata.sources.id_list import WORDS, IdList, id_words, read_id_list

UIDS = [f"{number * 7919:032x}" for number in range(50)] + ["f" * 32, "0" * 15 + "1" + "0" * 16]


@pytest.fixture(autouse=True)
def _own_folder_of_temporary_files(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("temporary")))


def datacomp_array(uids: list[str]) -> np.ndarray:
    """As baselines/apply_filter.py of DataComp makes it."""
    return np.array([(int(uid[:16], 16), int(uid[16:32], 16)) for uid in uids], np.dtype("u8,u8"))


@pytest.mark.parametrize("order", [sorted, lambda uids: sorted(uids, reverse=True)])
def test_a_list_of_datacomp_is_read_in_any_order(order, tmp_path: Path) -> None:
    path = tmp_path / "uids.npy"
    np.save(path, datacomp_array(order(UIDS[::2])))
    listed = read_id_list(str(path), "uid")
    assert listed.contains(UIDS).tolist() == [uid in UIDS[::2] for uid in UIDS]


def test_text_and_parquet_hold_ids_of_any_kind(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("17\n  cat \n\n" + UIDS[3])
    pq.write_table(pa.table({"key": [17, 4, None]}), tmp_path / "ids.parquet")
    assert read_id_list(str(tmp_path / "ids.txt"), "uid").contains([17, "cat", UIDS[3], 4]).tolist() == [1, 1, 1, 0]
    assert read_id_list(str(tmp_path / "ids.parquet"), "key").contains([17, 4, 5]).tolist() == [True, True, False]


def test_a_changed_list_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "ids.txt"
    path.write_text("a")
    assert not read_id_list(str(path), "uid").contains(["b"])[0]
    path.write_text("a\nb")
    assert read_id_list(str(path), "uid").contains(["b"])[0]


def test_what_is_no_list_is_an_error_and_no_pickle_is_opened(tmp_path: Path) -> None:
    np.save(tmp_path / "floats.npy", np.zeros(3))
    (tmp_path / "pickled.npy").write_bytes(pickle.dumps({"a": 1}))
    pq.write_table(pa.table({"other": [1]}), tmp_path / "ids.parquet")
    for name in ("floats.npy", "pickled.npy", "ids.parquet", "absent.txt"):
        with pytest.raises(UserError, match=rf"(?s){name}: is not a list of ids .*Remedy"):
            read_id_list(str(tmp_path / name), "uid")


def test_a_sorted_list_stays_on_the_disk(tmp_path: Path) -> None:
    np.save(tmp_path / "uids.npy", np.sort(datacomp_array(UIDS)))
    assert isinstance(read_id_list(str(tmp_path / "uids.npy"), "uid")._words, np.memmap)


@pytest.mark.parametrize("name", ["ids.txt", "ids.parquet", "ids.npy"])
def test_any_other_list_is_sorted_once_and_shared_by_all_workers(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(id_list, "BLOCK_IDS", 7)
    path, uids = tmp_path / name, UIDS[::-2]
    if name == "ids.txt":
        path.write_text("\n".join(uids))
    elif name == "ids.npy":
        np.save(path, datacomp_array(uids))
    else:
        pq.write_table(pa.table({"uid": uids}), path)
    assert read_id_list(str(path), "uid").contains(UIDS).tolist() == [uid in uids for uid in UIDS]
    id_list._read.cache_clear()  # as in another worker
    monkeypatch.setattr(id_list, "id_words", lambda ids: pytest.fail("read again"))
    words = read_id_list(str(path), "uid")._words
    assert isinstance(words, np.memmap) and len(words) == len(uids)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 40)), st.lists(st.integers(0, 40)))
def test_a_look_up_is_membership(listed: list[int], wanted: list[int]) -> None:
    ids = IdList(np.unique(id_words(listed)) if listed else np.empty(0, WORDS))
    assert ids.contains(wanted).tolist() == [value in listed for value in wanted]
