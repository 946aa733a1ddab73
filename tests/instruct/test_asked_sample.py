"""A sample as the tasks see it: which members it shows and plays, and in which words it is asked about."""

from __future__ import annotations

import pytest

from mmdata.instruct.asked_sample import FRAMES_SHOWN, Sample, frames_of, path_of, sound_of
from mmdata.instruct.templates import TEMPLATES
from tests.support.asked import clip, picture


def numbers(paths: tuple[str, ...]) -> list[int]:
    return [int(path.partition("::")[0].split(".")[1]) for path in paths]


@pytest.mark.parametrize(
    ("stored", "most", "shown"),
    [
        (4, FRAMES_SHOWN, [0, 1, 2, 3]),
        (8, FRAMES_SHOWN, list(range(8))),
        (15, 8, [0, 2, 4, 6, 8, 10, 12, 14]),
        (5, 2, [0, 4]),
        (4, 1, [2]),
        (5, 1, [2]),
        (1, 1, [0]),
    ],
)
def test_frames_are_evenly_spaced_and_a_single_one_is_the_middle(stored: int, most: int, shown: list[int]) -> None:
    row = clip(0, exts=[*(f"{at:03d}.jpg" for at in range(stored)), "flac"])
    assert numbers(frames_of(row, most)) == shown


def test_only_numbered_pictures_are_frames() -> None:
    row = clip(0, exts=["000.jpg", "001.png", "002.webp", "flac", "mp4", "jpg", "003.json"])
    assert [path.partition("::")[0].rpartition(".")[2] for path in frames_of(row)] == ["jpg", "png", "webp"]
    assert frames_of(clip(0, exts=None)) == ()


def test_paths_name_the_member_and_its_shard() -> None:
    row = picture(7)
    assert path_of(row) == f"tar://{row['uid']}.jpg::shards/train-c0000.tar"
    assert sound_of(row) is None
    assert sound_of(picture(7, exts=None)) is None
    assert sound_of(clip(7)) == f"tar://{row['uid']}.flac::shards/train-c0000.tar"


def test_what_is_not_stored_is_neither_picture_nor_clip() -> None:
    bare = Sample(picture(0, exts=[], caption="  two words \n"), 0, "en", 0)
    assert (bare.is_picture, bare.is_clip, bare.caption) == (False, False, "two words")
    heard_only = Sample(clip(0, exts=["flac"], caption=None), 0, "en", 0)
    assert (heard_only.is_picture, heard_only.is_clip, heard_only.caption) == (False, False, "")
    assert Sample(picture(0), 0, "en", 0).is_picture
    assert Sample(clip(0), 0, "en", 0).is_clip


def test_the_hash_draws_among_all_templates() -> None:
    instructions = {Sample(picture(0), 0, "zh", bits).ask("caption") for bits in range(64)}
    assert instructions == set(TEMPLATES["caption"]["zh"])


def test_another_language_than_the_templates_is_asked_for_by_name() -> None:
    def asked(lang: str, caption_lang: str | None) -> str:
        return Sample(picture(0, caption_lang=caption_lang), 0, lang, 0).ask_for_caption("caption")

    plain = TEMPLATES["caption"]["en"][0]
    assert asked("en", "en") == asked("en", None) == asked("en", "xx") == plain
    assert asked("en", "zh").startswith(plain) and "Chinese" in asked("en", "zh")
    assert asked("zh", "en").endswith("请用英语回答。")
