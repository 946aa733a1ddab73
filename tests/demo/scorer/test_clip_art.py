"""Captioned pictures of other people's sets: what is read and what is left out."""

from __future__ import annotations

import io
import json
import tarfile

import pytest

from mmdata.demo.drawings import demo_emoji, training_emoji
from mmdata.demo.scorer.clip_art import emoji_names, icon_set, openclipart
from mmdata.demo.scorer.projection import training_pictures
from mmdata.errors import UserError
from tests.support.clip_art import write_clip_art

CIRCLE = '<circle cx="8" cy="8" r="6" fill="red"/>'


@pytest.fixture
def noto_package(tmp_path):
    """An icon package of one training emoji, one demo emoji, one skin tone and one alias."""
    ours = next(e for e in training_emoji() if not e.has_skin_tone and "-" not in e.code and len(e.code) == 5)
    shown = next(e for e in demo_emoji() if not e.has_skin_tone and "-" not in e.code and len(e.code) == 5)
    files = {
        "icons.json": {"prefix": "noto", "icons": {n: {"body": CIRCLE} for n in ("ours", "shown", "tone", "alias")}},
        "chars.json": {ours.code.lower(): "ours", shown.code.lower(): "shown", "1f44b-1f3fb": "tone"},
    }
    path = tmp_path / "iconify-json-noto-1.0.0.tgz"
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            data = json.dumps(content).encode()
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path, ours, shown


def test_emoji_of_any_vendor_follow_the_demo_split(noto_package):
    path, ours, shown = noto_package
    read = list(icon_set(path, "noto"))
    assert {picture.key for picture in read} == {ours.code, shown.code}
    offered = next(pictures for pictures in training_pictures(path.parent) if pictures[0].source == "noto")
    assert [picture.key for picture in offered] == [ours.code]
    assert ours.name in offered[0].captions


def test_clip_art_without_words_of_its_own_is_left_out(tmp_path):
    write_clip_art(tmp_path, "animals/birds/owl.svg", "Owl_on a branch", "bird")
    write_clip_art(tmp_path, "animals/x.svg", "clipart by Nicu", "", colour="red")
    write_clip_art(tmp_path, "animals/twin.svg", "Owl_on a branch", "bird")  # the same bytes
    pictures = list(openclipart(tmp_path))
    assert [picture.key for picture in pictures] == ["animals/birds/owl.svg"]
    assert pictures[0].captions[0] == "Owl on a branch"
    assert "Owl on a branch, bird" in pictures[0].captions
    assert not any("Ann Artist" in caption for caption in pictures[0].captions)
    assert pictures[0].read().getpixel((100, 10)) == (0, 0, 255, 255)


def test_package_without_icons_names_what_is_missing(tmp_path):
    empty = tmp_path / "iconify-json-noto-1.tgz"
    with tarfile.open(empty, "w:gz"):
        pass
    with pytest.raises(UserError, match=r"no package/icons\.json inside"):
        list(icon_set(empty, "noto"))


def test_emoji_names_are_words():
    assert emoji_names("1F436")[0] == "dog face"
    assert emoji_names("0041") == ()
