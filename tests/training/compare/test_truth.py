"""Tables of the truth, in the demo's form and in a plain one."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from mmdata.errors import UserError
from training.compare.truth import with_truth

FRAME = pl.DataFrame({"uid": ["a", "b", "c"]})


def test_without_a_table_nothing_is_known() -> None:
    assert with_truth(FRAME, None).select("true_pair", "original", "kind").row(0) == (None, None, None)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_plain_table_names_truth_and_concept(tmp_path: Path, suffix: str) -> None:
    table = pl.DataFrame({"uid": ["c", "a"], "true_pair": [False, True], "concept": ["dog", "cat"]})
    path = tmp_path / f"truth.{suffix}"
    table.write_csv(path) if suffix == "csv" else table.write_parquet(path)
    found = with_truth(FRAME, path)
    assert found["true_pair"].to_list() == [True, None, False]
    assert found["kind"].to_list() == ["cat", None, "dog"]
    assert found["uid"].to_list() == ["a", "b", "c"]


def test_the_table_of_the_demo_names_what_was_planted(tmp_path: Path) -> None:
    columns = {
        "uid": ["a", "a", "b", "c"],
        "planted": ["repeated_row", "clean", "mismatch", "near_duplicate"],
        "kind": ["x", "x", "y", "x"],
        "of_uid": ["a", None, None, "a"],
    }
    pl.DataFrame(columns).write_parquet(tmp_path / "truth.parquet")
    found = with_truth(FRAME, tmp_path / "truth.parquet")
    assert found["true_pair"].to_list() == [True, False, True]
    assert found["original"].to_list() == [None, None, "a"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"uid": ["a"], "good": [True]}, "`uid` and `true_pair`"),
        ({"name": ["a"], "true_pair": [True]}, "`uid` and `true_pair`"),
        ({"uid": ["z"], "true_pair": [True]}, "knows none of the 3 pairs"),
    ],
)
def test_a_table_that_tells_nothing_is_an_error(tmp_path: Path, columns: dict[str, list[object]], message: str) -> None:
    pl.DataFrame(columns).write_parquet(tmp_path / "truth.parquet")
    with pytest.raises(UserError, match=message):
        with_truth(FRAME, tmp_path / "truth.parquet")


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.parquet"):
        with_truth(FRAME, tmp_path / "none.parquet")
