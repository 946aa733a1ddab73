"""Captions by video, on a disk and on an object store, and what tells that they changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from upath import UPath

from mmdata.errors import DataError
from mmdata.fingerprint import file_sha256
from mmdata.sources import captions
from mmdata.sources.captions import CaptionSource
from mmdata.sources.timed import Caption
from tests.sources.conftest import captions_json
from tests.support.buckets import s3_bucket

CSV = "start,end,text\n0,5,{}\n"


@pytest.fixture(params=["disk", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[UPath]:
    if request.param == "disk":
        (tmp_path / "told [1]").mkdir()
        yield UPath(tmp_path / "told [1]")
        return
    with s3_bucket() as url:
        yield UPath(url) / "told"


def template(folder: UPath) -> CaptionSource:
    return CaptionSource(f"{folder}/{{video_id}}.csv", folder / "cache")


def test_files_a_video_are_read_wherever_they_lie(folder: UPath) -> None:
    (folder / "-a_b.csv").write_text(CSV.format("one"))
    (folder / "empty.csv").write_text("")
    (folder / "other.csv").write_text("a,b\n")
    assert template(folder).read(["-a_b", "gone", "empty", "other"]) == {
        "-a_b": [Caption(0, 5, "one")],
        "gone": "no_captions",
        "empty": "no_captions",
        "other": "bad_captions",
    }
    assert template(folder).read([]) == {}


def test_one_file_for_all_is_read_wherever_it_lies(folder: UPath) -> None:
    path = folder / "raw.json"
    path.write_text(json.dumps({video: captions_json((0, 5, f"of {video}")) for video in "cab"}))
    source = CaptionSource(str(path), folder / "cache")
    assert source.read(["b", "gone", "c"]) == {
        "b": [Caption(0, 5, "of b")],
        "gone": "no_captions",
        "c": [Caption(0, 5, "of c")],
    }


def test_each_change_of_a_file_changes_the_state(folder: UPath) -> None:
    source = template(folder)
    with pytest.raises(DataError, match=r"video_id\}\.csv: no file matches it"):
        source.state()
    states = []
    for name, text in [("a", "one"), ("b", "one"), ("b", "new"), ("a", "longer")]:
        (folder / f"{name}.csv").write_text(CSV.format(text))
        states.append(source.state())
        assert source.state() == states[-1]
    (folder / "c.vtt").write_text("WEBVTT")
    assert source.state() == states[-1], "a file that does not match the template"
    (folder / "b.csv").unlink()
    assert len({*states, source.state()}) == 5


def test_the_index_of_a_file_that_is_no_captions_says_so(folder: UPath) -> None:
    path = folder / "raw.json"
    path.write_text('{"a": {"start": [')
    with pytest.raises(DataError, match=r"raw\.json: byte 17"):
        CaptionSource(str(path), folder / "cache").write_index()
    path.unlink()
    with pytest.raises(FileNotFoundError):
        CaptionSource(str(path), folder / "cache").state()


def test_the_digest_is_of_the_content(tmp_path: Path) -> None:
    folders = [UPath(tmp_path / name) for name in ("here", "copied elsewhere")]
    digests = []
    for folder in folders:
        folder.mkdir()
        for video in "ab":
            (folder / f"{video}.csv").write_text(CSV.format(f"of {video}"))
        digests.append(template(folder).digest())
    assert digests[0] == digests[1]
    assert template(folders[0]).state() != template(folders[1]).state()
    (folders[1] / "b.csv").rename(folders[1] / "c.csv")
    assert template(folders[1]).digest() != digests[0], "the words are of another video"


def test_only_files_that_changed_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = UPath(tmp_path)
    for video in "abc":
        (folder / f"{video}.csv").write_text(CSV.format(f"of {video}"))
    read: list[str] = []
    monkeypatch.setattr(captions, "file_sha256", lambda path: (read.append(path.stem), file_sha256(path))[1])
    first = template(folder).digest()
    (folder / "b.csv").touch()
    assert template(folder).digest(may_write=False) == first
    assert read == ["a", "b", "c", "b"], "what is known is used, and nothing is written"
    read.clear()
    assert template(folder).digest() == first
    assert read == ["b"], "its time changed"
    (folder / "b.csv").write_text(CSV.format("other"))
    (known,) = (folder / "cache").iterdir()
    known.write_bytes(b"damaged")
    assert template(folder).digest() != first
    assert read == ["b", "a", "b", "c"]
