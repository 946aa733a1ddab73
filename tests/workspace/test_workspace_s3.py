"""A workspace on an object store: moto's own server on loopback."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mmdata.errors import DataError
from mmdata.publish.verify import verify_release
from mmdata.select.stage import select_samples
from mmdata.shards.stage import write_shards
from mmdata.storage.atomic import publish_json
from mmdata.storage.tables import scan_tables
from mmdata.workspace.json_files import read_json
from mmdata.workspace.layout import Workspace
from tests.support.buckets import s3_bucket
from tests.support.workspaces import build, release

PARTS = {"web-000000": range(20), "web-000001": range(20, 40)}


@pytest.fixture
def bucket() -> Iterator[str]:
    with s3_bucket() as url:
        yield url


def test_the_road_ends_in_the_same_release_on_s3(bucket: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    local = build(str(tmp_path_factory.mktemp("local")), PARTS)
    remote = build(bucket, PARTS)
    assert release(remote) == release(local)
    here, there = local.workspace.shards_dir, remote.workspace.shards_dir
    names = sorted(path.name for path in here.glob("*.tar"))
    assert sorted(path.name for path in there.glob("*.tar")) == names
    assert all((here / name).read_bytes() == (there / name).read_bytes() for name in names)
    assert verify_release(bucket).counts["samples"] == 40
    assert release(remote) == release(local), "a second run finds everything done"


def test_stamps_and_tables_are_read_back(bucket: str) -> None:
    workspace = Workspace(bucket)
    assert workspace.part_stamp("web-000000", "rows") is None
    assert workspace.latest() is None
    assert workspace.releases() == []
    publish_json(workspace.draft_path, {"release_id": "x"})
    assert read_json(workspace.draft_path) == {"release_id": "x"}
    built = build(bucket, PARTS)
    paths = [built.workspace.table("web-000000", "rows", name) for name in ("0000", "0001")]
    assert scan_tables(paths, ["uid"]).collect().height == 20
    built.workspace.clear_part_stamp("web-000000", "rows")
    assert built.workspace.part_stamp("web-000000", "rows") is None


@pytest.mark.parametrize("how", ["gone", "short"])
def test_a_media_tar_that_is_not_whole_is_named(bucket: str, how: str) -> None:
    built = build(bucket, PARTS)
    select_samples(built.corpus, built.workspace)
    tar = next(iter((built.workspace.part_dir("web-000001") / "media").glob("*.tar")))
    if how == "gone":
        tar.unlink()
    else:
        tar.write_bytes(b"short")
    with pytest.raises(DataError, match=rf"{tar.name}.*web-000001"):
        write_shards(built.corpus, built.workspace)
