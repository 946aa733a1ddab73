"""A shard's bytes, against Python's tarfile given the same members; media that are not where the table says."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.errors import DataError
from mmdata.shards.media import read_media
from mmdata.shards.pack import pack
from mmdata.shards.tar import padded

SAMPLES = st.lists(
    st.tuples(st.one_of(st.none(), st.binary(max_size=1100)), st.binary(max_size=600), st.text(max_size=300)),
    max_size=6,
)


def frame_of(tar: Path, samples: list[tuple[bytes | None, bytes, str]]) -> pl.DataFrame:
    """The samples as `members.complete` gives them, their images one after another in a file."""
    rows, content = [], b""
    for number, (image, facts, caption) in enumerate(samples):
        text = caption.encode()
        sizes = [len(facts), len(text)] + ([] if image is None else [len(image)])
        rows.append(
            {
                "key": f"{number:032x}",
                "part": "web-000000",
                "tar": str(tar),
                "ext": None if image is None else "jpg",
                "offset": None if image is None else len(content),
                "length": None if image is None else len(image),
                "json": facts,
                "txt": text,
                "size": sum(padded(size) for size in sizes),
            }
        )
        content += image or b""
    tar.write_bytes(content)
    integers = dict.fromkeys(("offset", "length", "size"), pl.Int64)
    strings = dict.fromkeys(("key", "part", "tar", "ext"), pl.String)
    return pl.DataFrame(rows, schema={**strings, **integers, "json": pl.Binary, "txt": pl.Binary})


@given(SAMPLES)
def test_python_finds_the_members_in_their_order(
    tmp_path_factory: pytest.TempPathFactory, samples: list[tuple[bytes | None, bytes, str]]
) -> None:
    frame = frame_of(tmp_path_factory.mktemp("media") / "0000.tar", samples)
    archive = bytes(pack(frame))
    expected = []
    for key, (image, facts, caption) in zip(frame["key"], samples, strict=True):
        expected += [] if image is None else [(f"{key}.jpg", image)]
        expected += [(f"{key}.json", facts), (f"{key}.txt", caption.encode())]
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as tar:
        assert [(info.name, tar.extractfile(info).read()) for info in tar] == expected
        assert len(archive) == tar.offset + 1024


def test_a_short_tar_is_named_with_its_remedy(tmp_path: Path) -> None:
    frame = frame_of(tmp_path / "0000.tar", [(b"x" * 100, b"{}", "a")])
    (tmp_path / "0000.tar").write_bytes(b"x" * 99)
    with pytest.raises(DataError, match=r"0000\.tar: 99 bytes at offset 0 where 100 should be.*web-000000"):
        pack(frame)


def test_a_missing_tar_is_named_with_its_remedy(tmp_path: Path) -> None:
    frame = frame_of(tmp_path / "0000.tar", [(b"x" * 100, b"{}", "a")])
    (tmp_path / "0000.tar").unlink()
    with pytest.raises(DataError, match=r"0000\.tar.*web-000000"):
        pack(frame)


def test_a_disk_that_fails_is_no_fault_of_the_data(tmp_path: Path) -> None:
    frame = frame_of(tmp_path / "0000.tar", [(b"x", b"{}", "a")])
    (tmp_path / "0000.tar").unlink()
    (tmp_path / "0000.tar").mkdir()
    with pytest.raises(IsADirectoryError):
        read_media(frame.with_columns(place=pl.lit(0)), memoryview(bytearray(1)))
