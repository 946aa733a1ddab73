"""A shard's bytes, against Python's tarfile given the same members."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.shards.packing import pack
from tests.support.packed_samples import Members, frame_of

MEDIA = st.one_of(
    st.just(()),
    st.binary(max_size=1100).map(lambda data: (("jpg", data),)),
    st.lists(st.binary(max_size=1100), min_size=1, max_size=4).map(
        lambda frames: (*((f"{at:03d}.jpg", data) for at, data in enumerate(frames)), ("flac", frames[0][::-1]))
    ),
)
SAMPLES = st.lists(st.tuples(MEDIA, st.binary(max_size=600), st.text(max_size=300)), max_size=6)


@given(SAMPLES, st.booleans())
def test_python_finds_the_members_in_their_order(
    tmp_path_factory: pytest.TempPathFactory, samples: list[tuple[Members, bytes, str]], in_tar: bool
) -> None:
    frame = frame_of(tmp_path_factory.mktemp("media") / "0000.tar", samples, in_tar)
    archive = bytes(pack(frame))
    expected = []
    for key, (media, facts, caption) in zip(frame["key"], samples, strict=True):
        expected += [(f"{key}.{ext}", data) for ext, data in media]
        expected += [(f"{key}.json", facts), (f"{key}.txt", caption.encode())]
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as tar:
        members = list(tar)
        assert [(info.name, tar.extractfile(info).read()) for info in members] == expected
        assert {info.mtime for info in members} <= {0}
        assert len(archive) == tar.offset + 1024
