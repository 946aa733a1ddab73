"""Which shards are missing or cut."""

from __future__ import annotations

from pathlib import Path

from mmdata.releases.shard import shard_problems
from mmdata.workspace.layout import Workspace


def test_missing_and_cut_shards_are_named(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "whole.tar").write_bytes(b"1234")
    (tmp_path / "shards" / "cut.tar").write_bytes(b"123")
    shards = [{"name": f"{name}.tar", "bytes": 4} for name in ("whole", "cut", "gone")]
    cut, gone = shard_problems(Workspace(str(tmp_path)), shards)
    assert cut.endswith("cut.tar has 3 bytes, not 4")
    assert gone.endswith("gone.tar is not there")
