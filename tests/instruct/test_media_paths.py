"""Reading the pictures that records name: from shards and data URIs, and from nowhere else."""

from __future__ import annotations

import pytest

from mmdata.errors import DataError
from mmdata.instruct.media_paths import data_uri, member_path, read_member
from tests.support.tiny_release import Tiny


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "file:///etc/passwd",
        "tar://a.jpg::/etc/x.tar",
        "tar://a.jpg::shards/../../x.tar",
        "tar://../a.jpg::shards/x.tar",
        "tar://a.jpg::https://example.org/x.tar",
        "data:image/jpeg;base64,@@@",
        "",
    ],
)
def test_anything_else_is_refused(path: str, tmp_path: object) -> None:
    with pytest.raises(DataError):
        read_member(path, str(tmp_path))


def test_a_missing_shard_or_member_is_named(tiny: Tiny) -> None:
    shard = next(path.name for path in tiny.workspace.shards_dir.iterdir())
    with pytest.raises(DataError, match=r"no-such\.tar: no such shard"):
        read_member("tar://a.jpg::shards/no-such.tar", tiny.workspace.root)
    with pytest.raises(DataError, match=r"no member 'a\.jpg'"):
        read_member(f"tar://a.jpg::shards/{shard}", tiny.workspace.root)


def test_data_uris_round_trip() -> None:
    uri = data_uri(member_path("k", "webp", "s"), b"\x00\xffbytes")
    assert uri.startswith("data:image/webp;base64,")
    assert read_member(uri, "/nowhere") == b"\x00\xffbytes"
