"""Media of own records: found in folders, tars and base64, and nowhere else."""

from __future__ import annotations

import base64
import io
import pickle
import tarfile
from pathlib import Path

import pytest

from mmdata.errors import UserError
from tests.support.made_release import flac, jpeg, tone
from training.data.own_media import EMBEDDED, MediaPlaces, Place, embedded_bytes, is_embedded

ENCODED = base64.b64encode(jpeg(1)).decode()


def tar_at(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def places(tmp_path: Path) -> MediaPlaces:
    folder = tmp_path / "pictures"
    (folder / "in").mkdir(parents=True)
    (folder / "in" / "one.jpg").write_bytes(jpeg(1))
    (tmp_path / "secret.jpg").write_bytes(jpeg(9))
    (folder / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (folder / "circle").symlink_to(folder / "circle")
    tar = tar_at(tmp_path / "more.tar", {"./two.jpg": jpeg(2), "in/one.jpg": jpeg(3), "deep/three.jpg": jpeg(4)})
    return MediaPlaces([folder, tar])


def test_media_are_read_from_where_they_are_found_first(places: MediaPlaces) -> None:
    for name, number in (("in/one.jpg", 1), ("two.jpg", 2), ("./two.jpg", 2), ("deep/three.jpg", 4)):
        place = places.find(name)
        assert place.number == (0 if number == 1 else 1)
        assert places.read(name, place) == pickle.loads(pickle.dumps(places)).read(name, place) == jpeg(number)


@pytest.mark.parametrize(
    "name", ["../secret.jpg", "in/../../secret.jpg", "link.jpg", "/etc/passwd", "{root}/secret.jpg"]
)
def test_a_path_out_of_the_folder_is_refused(places: MediaPlaces, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="leads out of the folder"):
        places.find(name.format(root=tmp_path))


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("none.jpg", "no picture or sound 'none.jpg' in .*pictures, .*more.tar"),
        ("in", "no picture or sound"),
        ("", "no picture or sound"),
        ("circle", "not a path|no picture"),
        ("a\0b", "neither a path nor base64"),
        ("x" * 300, "not a path"),
        ("x." * 3000, "neither a path nor base64"),
        ("https://example.org/a.jpg", r"fetches nothing. Remedy: fetch the pictures first"),
        ("s3://bucket/a.jpg", "fetches nothing"),
        ("FILE:///etc/passwd", "fetches nothing"),
    ],
)
def test_what_is_not_there_is_said(places: MediaPlaces, name: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        places.find(name)


@pytest.mark.parametrize(
    "text",
    [
        ENCODED,
        f"data:image/jpeg;base64,{ENCODED}",
        f"data:image/x-anything;charset=utf-8;base64,{ENCODED}",
        "\n".join(ENCODED[at : at + 76] for at in range(0, len(ENCODED), 76)),
    ],
)
def test_base64_with_and_without_a_head_is_the_picture(places: MediaPlaces, text: str) -> None:
    assert places.find(text) == Place(EMBEDDED)
    assert places.read(text, Place(EMBEDDED)) == jpeg(1)


def test_sound_in_base64_is_known_too() -> None:
    encoded = base64.b64encode(flac(tone(440, 0.2), 16_000)).decode()
    assert is_embedded(encoded)
    assert embedded_bytes(encoded) == flac(tone(440, 0.2), 16_000)


@pytest.mark.parametrize("text", [ENCODED[:-3], ENCODED.replace("A", "!"), "data:image/jpeg;base64,@@", "data:x,y"])
def test_broken_base64_is_said(places: MediaPlaces, text: str) -> None:
    with pytest.raises(ValueError, match=r"broken base64|not of base64"):
        places.read(text, places.find(text))


@pytest.mark.parametrize("name", ["9j.jpg", "/9j/photo.jpg", "iVBORw0KGgo", "R0lGOD/cat.gif"])
def test_names_of_files_are_no_base64(name: str) -> None:
    assert not is_embedded(name)


def test_a_file_that_has_gone_is_said(places: MediaPlaces, tmp_path: Path) -> None:
    place = places.find("in/one.jpg")
    (tmp_path / "pictures" / "in" / "one.jpg").unlink()
    with pytest.raises(ValueError, match="no longer there"):
        places.read("in/one.jpg", place)


def test_places_that_cannot_hold_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such folder or tar file\. Remedy"):
        MediaPlaces([tmp_path / "none"])
    (tmp_path / "text").write_text("no tar")
    remedy = r"neither a folder nor a plain tar file .*Remedy: unpack it, or pack it again without compression"
    with pytest.raises(UserError, match=remedy):
        MediaPlaces([tmp_path / "text"])
    with pytest.raises(UserError, match=remedy):
        MediaPlaces([tar_at(tmp_path / "packed.tar.gz", {"a.jpg": jpeg(1)}, "w:gz")])
    whole = tar_at(tmp_path / "whole.tar", {"a.jpg": jpeg(1), "b.jpg": jpeg(2)})
    (tmp_path / "cut.tar").write_bytes(whole.read_bytes()[: 512 + len(jpeg(1)) // 2])
    with pytest.raises(UserError, match="Remedy: unpack it"):
        MediaPlaces([tmp_path / "cut.tar"])


def test_a_tar_made_by_python_of_files_is_read_and_a_long_name_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "from"
    folder.mkdir()
    (folder / "one.jpg").write_bytes(jpeg(1))
    (folder / f"{'long' * 30}.jpg").write_bytes(jpeg(2))
    with tarfile.open(tmp_path / "made.tar", "w") as tar:  # with extended headers, as the time is a float
        tar.add(folder, "pictures")
    places = MediaPlaces([tmp_path / "made.tar"])
    assert places.read("pictures/one.jpg", places.find("pictures/one.jpg")) == jpeg(1)
    with pytest.raises(ValueError, match="names of up to 100 bytes"):
        places.find(f"pictures/{'long' * 30}.jpg")
