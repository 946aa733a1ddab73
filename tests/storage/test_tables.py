"""Reading tables: what is broken for good, and what may pass."""

from __future__ import annotations

import errno
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from mmdata.errors import DataError
from mmdata.storage.tables import read_schema, read_table, scan_tables, write_table


def test_a_column_that_only_some_tables_have_may_be_asked_for_or_not(tmp_path: Path) -> None:
    paths = [UPath(tmp_path / name) for name in ("plain.parquet", "further.parquet")]
    write_table(paths[0], pa.table({"a": [1]}))
    write_table(paths[1], pa.table({"a": [2], "b": ["x"]}))
    assert [read_table(path, ["a"], ["b"]).column_names for path in paths] == [["a"], ["a", "b"]]
    for order in (paths, paths[::-1]):
        assert sorted(scan_tables(order, ["a"]).collect()["a"]) == [1, 2]


def test_a_missing_and_a_damaged_table_are_named(tmp_path: Path) -> None:
    path = UPath(tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"t\.parquet"):
        read_table(path)
    write_table(path, pa.table({"a": list(range(1000))}))
    (tmp_path / "t.parquet").write_bytes((tmp_path / "t.parquet").read_bytes()[:-40])
    with pytest.raises(DataError, match=r"t\.parquet.*--redo"):
        read_table(path)


@pytest.mark.parametrize(
    "fault",
    [
        OSError(errno.EIO, "input/output error"),
        TimeoutError(),
        ConnectionResetError("reset"),
        PermissionError("s3: no"),
    ],
    ids=lambda fault: type(fault).__name__,
)
def test_a_fault_of_the_disk_or_the_store_is_no_broken_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: OSError
) -> None:
    def read(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setattr(pq, "read_table", read)
    with pytest.raises(type(fault)) as raised:
        read_table(UPath(tmp_path / "t.parquet"))
    assert raised.value is fault


def test_tables_of_an_older_version_without_a_column_are_scanned_with_newer_ones(tmp_path: Path) -> None:
    older, newer = UPath(tmp_path / "a.parquet"), UPath(tmp_path / "b.parquet")
    write_table(older, pa.table({"uid": ["a"], "x": [1]}))
    write_table(newer, pa.table({"uid": ["b"], "new": [9], "x": [2]}))
    for paths in ([older, newer], [newer, older]):
        assert sorted(scan_tables(paths, ["x", "uid"]).collect().rows()) == [(1, "a"), (2, "b")]
    assert (read_schema(older).names, read_schema(newer).names) == (["uid", "x"], ["uid", "new", "x"])
    (tmp_path / "c.parquet").write_bytes(b"no table")
    with pytest.raises(DataError, match=r"c\.parquet: cannot be read as Parquet"):
        read_schema(UPath(tmp_path / "c.parquet"))
