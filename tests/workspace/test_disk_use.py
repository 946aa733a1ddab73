"""Space by kind of file, on a disk and on an object store."""

from __future__ import annotations

from mmdata.storage.atomic import publish_bytes
from mmdata.workspace.disk_use import DiskUse, disk_use, kind_of
from mmdata.workspace.layout import Workspace

FILES = {
    "catalog.json": 10,
    "parts/web-000000/rows.json": 20,
    "parts/web-000000/rows/0000.json": 5,
    "parts/web-000000/rows/0000.parquet": 300,
    "parts/web-000000/media/0000-aa.tar": 4000,
    "parts/web-000000/media/0001-bb.tar": 1000,
    "shards/train.tar": 2000,
}


def test_files_and_bytes_are_summed_by_kind_the_largest_first(workspace: Workspace) -> None:
    for name, size in FILES.items():
        publish_bytes(workspace.root / name, bytes(size))
    assert list(disk_use(workspace).items()) == [
        ("media", DiskUse(2, 5000)),
        ("shards", DiskUse(1, 2000)),
        ("rows tables", DiskUse(1, 300)),
        ("stamps", DiskUse(2, 25)),
        ("catalogue and draft", DiskUse(1, 10)),
    ]


def test_drafts_of_killed_processes_and_dagsters_files_have_kinds_of_their_own() -> None:
    assert kind_of("parts/web-000000/media/.tmp-12-0000.tar") == "left over by killed processes"
    assert kind_of(".dagster/history/runs.db") == "Dagster's runs"
    assert kind_of("scores/00ff/0011.npy") == "kept scores and what they compare with"
